"""Columns of sharded loads: peaks of the worst rank, memory of a node, bytes read by all ranks."""

from collections.abc import Sequence
from dataclasses import replace

from bench.record.field import Column
from bench.record.record import FIELDS
from bench.report.rows import Row
from model.byte_sizes import fine_size

# How the model is divided.
SPLIT = "split"


def scales(table: Sequence[Row]) -> list[str]:
    """Explain S/N, a line a size and number of ranks; empty without sharded loads."""
    shares: dict[tuple[str, int], dict[str, int]] = {}
    for row in table:
        if row.key.parallelism and row.record.share_bytes is not None:
            shares.setdefault((row.size, row.key.ranks), {})[row.key.parallelism] = row.record.share_bytes
    return [
        f"{size}: after the load, one rank of {ranks:,} holds S/N = "
        + ", ".join(f"{fine_size(count)} ({parallelism})" for parallelism, count in found.items())
        for (size, ranks), found in shares.items()
    ]


def columns(table: Sequence[Row]) -> list[tuple[str, Column]]:
    """Return the columns with the names of their fields: those of a rank, of a node, of all ranks, and times."""
    found = [(name, column) for name, field in FIELDS.items() for column in field.sharded]
    one_count = len({row.record.ranks for row in table}) == 1
    # Where the number of ranks is the same in all rows, a line above the table says it.
    return [(name, replace(column, spare=4) if one_count and name == "ranks" else column) for name, column in found]
