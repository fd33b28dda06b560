"""Columns of sharded loads: peaks of the worst rank, memory of a node, bytes read by all ranks."""

from collections.abc import Sequence
from dataclasses import replace

from bench.record.field import Column
from bench.record.formats import GIB, MIB, Unit
from bench.record.record import FIELDS, Record
from bench.report.rows import Row

# How the model is divided.
SPLIT = "split"
# A rank that takes less of a GiB would have one digit, or none.
FEW_GIB = 0.1


def unit(table: Sequence[Row]) -> Unit:
    """One for all of a table, so that its figures can be compared: that of the rank that takes least."""
    taken = [_held(row.record) for row in table]
    return MIB if min(filter(None, taken), default=GIB.size) < FEW_GIB * GIB.size else GIB


def _held(record: Record) -> int | None:
    device = record.device_requested_peak_bytes
    return record.host_private_peak_bytes if device is None else device


def scales(table: Sequence[Row]) -> list[str]:
    """Explain S/N, a line a size and number of ranks, and the units of the columns; empty without sharded loads."""
    shares: dict[tuple[str, int], dict[str, int]] = {}
    for row in table:
        if row.key.parallelism and row.record.share_bytes is not None:
            shares.setdefault((row.size, row.key.ranks), {})[row.key.parallelism] = row.record.share_bytes
    lines = [
        f"{size}: after the load, one rank of {ranks:,} holds S/N = "
        + ", ".join(f"{count:,} ({parallelism})" for parallelism, count in found.items())
        + " bytes"
        for (size, ranks), found in shares.items()
    ]
    about = f"In {unit(table).name}: the rank with the highest peak; node, file: all ranks of a node"
    read = "; read: all ranks, in S" if any(row.record.read_bytes is not None for row in table) else ""
    return [*lines, f"{about}{read}"] if lines else []


def columns(table: Sequence[Row]) -> list[tuple[str, Column]]:
    """Return the columns with the names of their fields: those of a rank, of a node, of all ranks, and times."""
    found = [(name, column) for name, field in FIELDS.items() for column in field.sharded]
    one_count = len({row.record.ranks for row in table}) == 1
    # Where the number of ranks is the same in all rows, a line above the table says it.
    return [(name, replace(column, spare=4) if one_count and name == "ranks" else column) for name, column in found]
