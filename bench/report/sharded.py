"""The columns of loads by many processes: what the rank takes that takes most, what a node does, what all read."""

from collections.abc import Sequence
from typing import NamedTuple

from bench.record.record import Record
from bench.report.formats import Column, Show, in_three_digits, measured, multiple, number, three_digits
from bench.report.rows import Row


class Unit(NamedTuple):
    """What a table has its bytes in."""

    name: str
    size: int


MIB, GIB = Unit("MiB", 2**20), Unit("GiB", 2**30)
# How the model is divided.
SPLIT = "split"
# A rank that takes less of a GiB would have one digit, or none.
FEW_GIB = 0.1


def unit(table: Sequence[Row]) -> Unit:
    """One for all of a table, so that its figures can be compared: that of the rank that takes least."""
    taken = [row.record.get("device_requested_peak_bytes", row.record.get("host_private_peak_bytes")) for row in table]
    return MIB if min(filter(None, taken), default=GIB.size) < FEW_GIB * GIB.size else GIB


def scales(table: Sequence[Row]) -> list[str]:
    """Explain S/N, a line a size and number of ranks, and the units of the columns; empty without sharded loads."""
    shares: dict[tuple[str, int], dict[str, int]] = {}
    for row in table:
        if row.division and "share_bytes" in row.record:
            shares.setdefault((row.size, row.division.ranks), {})[row.division.parallelism] = row.record["share_bytes"]
    told = [
        f"{size}: after the load, one rank of {ranks:,} holds S/N = "
        + ", ".join(f"{count:,} ({parallelism})" for parallelism, count in found.items())
        + " bytes"
        for (size, ranks), found in shares.items()
    ]
    about = f"In {unit(table).name}: the rank with the highest peak; node, file: all ranks of a node"
    read = "; read: all ranks, in S" if any("read_bytes" in row.record for row in table) else ""
    return [*told, f"{about}{read}"] if told else []


def columns(table: Sequence[Row]) -> tuple[Column, ...]:
    """Those of a rank come first, then of a node, of all ranks, and times."""
    one = unit(table)

    def memory(name: str) -> Show:
        return three_digits(name, 1 / one.size)

    def bound(name: str, of: str) -> Show:
        """A bound is recorded as a multiple of S."""

        def show(record: Record) -> str | None:
            known = None not in (record.get(name), record.get(of))
            return in_three_digits(record[name] * record["state_bytes"] / one.size) if known else None

        return show

    # Where it is the same in all rows, a line above the table says it.
    ranks_left_out = 4 if len({row.record.get("ranks") for row in table}) == 1 else 0
    return (
        (SPLIT, "parallelism", lambda record: record.get("parallelism"), 0),
        ("ranks", "ranks", measured("ranks", lambda record: f"{record['ranks']:,}"), ranks_left_out),
        ("device", f"device {one.name}, worst rank", memory("device_requested_peak_bytes"), 0),
        ("bound", "device bound", bound("device_bound_ratio", "device_requested_peak_bytes"), 5),
        ("of S/N", "device of S/N", multiple("device_requested_peak_bytes", "share_bytes"), 1),
        ("reserved", f"reserved {one.name}", memory("device_reserved_peak_bytes"), 9),
        ("private", f"private {one.name}, worst rank", memory("host_private_peak_bytes"), 2),
        ("bound", "private bound", bound("host_bound_ratio", "host_private_peak_bytes"), 8),
        ("node", f"private {one.name}, node", memory("node_private_peak_bytes"), 0),
        ("file", f"file-backed {one.name}, node", memory("node_file_peak_bytes"), 6),
        ("read", "read by all", multiple("read_bytes"), 0),
        ("load s", "load, s", number("load_seconds"), 3),
        ("logits s", "first logits, s", number("first_logits_seconds"), 0),
        ("GB/s", "GB/s", three_digits("bytes_per_second", 1e-9), 7),
    )
