"""Loads by many ranks as a short table: a row a strategy, and a column for each number of ranks."""

from collections.abc import Sequence
from typing import NamedTuple

from bench.record.formats import Unit, in_three_digits
from bench.report.budget_marks import verdict
from bench.report.rows import Row, Status
from bench.report.unit import unit


class PivotCell(NamedTuple):
    """Peaks of a load: of the rank that takes most of its device, and of a node's host memory; or what became of it.

    `style` is whether it fits, or the status of a load that was not measured; empty without a budget.
    """

    device: str
    node: str
    style: str = ""


class Pivot(NamedTuple):
    """The loads of one size. `rows` begin with the strategy and its parallelism; None: there is no such load."""

    size: str
    unit: str
    ranks: Sequence[int]
    rows: Sequence[tuple[str, str, Sequence[PivotCell | None]]]


def pivots(table: Sequence[Row]) -> list[Pivot]:
    """Return a table for each size whose loads are by several numbers of ranks."""
    found = []
    for size in dict.fromkeys(row.size for row in table):
        loads = [row for row in table if row.size == size and row.key.parallelism]
        ranks = sorted({row.key.ranks for row in loads})
        if len(ranks) > 1:
            found.append(_pivot(size, loads, ranks))
    return found


def _pivot(size: str, loads: Sequence[Row], ranks: Sequence[int]) -> Pivot:
    scale = unit(loads)
    by_key = {(row.key.strategy, row.key.parallelism, row.key.ranks): row for row in loads}
    names = sorted(dict.fromkeys((row.key.strategy, row.key.parallelism) for row in loads), key=lambda name: name[1])
    rows = [(*name, [_cell(by_key.get((*name, count)), scale) for count in ranks]) for name in names]
    return Pivot(size, scale.name, ranks, rows)


def _cell(row: Row | None, scale: Unit) -> PivotCell | None:
    if row is None:
        return None
    if row.status != Status.OK:
        return PivotCell(str(row.status), "-", str(row.status).lower())
    record = row.record
    style = "" if record.fits is None else verdict(row)
    device, node = record.device_requested_peak_bytes, record.node_private_peak_bytes
    return PivotCell(_shown(device, scale), _shown(node, scale), style)


def _shown(count: int | None, scale: Unit) -> str:
    return "-" if count is None else in_three_digits(count / scale.size)
