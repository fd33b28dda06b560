"""The tables of `results/sharded.md`: measured loads as printed, planned loads by number of ranks."""

from collections.abc import Iterable, Iterator, Sequence

from bench.record.formats import in_three_digits
from bench.record.record import Record
from bench.record.row_key import RowKey
from bench.report import sharded
from bench.report.recorded import Recorded
from bench.report.recorded_section import RecordedSection
from bench.report.rows import Row, rows
from bench.report.table import problems, terminal_lines
from bench.report.text_table import markdown_table
from bench.report.unit import unit
from bench.sharded.rank_group import NODE_RANKS


def _lines(runs: Sequence[Recorded]) -> Iterator[str]:
    """Render measured runs one by one, and planned loads by the size of the model.

    Raises `ValueError` for a run without sharded loads.
    """
    for run in runs:
        if not any(row.key.parallelism for row in run.rows):
            raise ValueError(f"--sharded: run {run.run.number} has no sharded loads")
    plans = [run for run in runs if any(result.record.planned for result in run.results)]
    for run in runs:
        if run not in plans:
            yield from ("```text", *terminal_lines(run.rows, COLUMNS), "```", "")
    planned = rows(result for run in plans for result in run.results)
    for size in dict.fromkeys(row.size for row in planned):
        yield from _planned([row for row in planned if row.size == size])


# Characters that a rendered code block shows in one line.
COLUMNS = 88

SHARDED = RecordedSection("sharded", "results/sharded.md", _lines)


def _planned(table: Sequence[Row]) -> Iterator[str]:
    """Render one size: a row a strategy and parallelism, two figures a number of ranks."""
    of_bytes = unit(table)
    found = {row.key: row.record for row in table if row.key.parallelism and row.record.share_bytes is not None}
    counts = sorted({one.ranks for one in found})
    shares = {(one.parallelism, one.ranks): record for one, record in found.items()}

    def shown(records: Iterable[Record | None], name: str) -> list[str]:
        values = [record.value(name) if record else None for record in records]
        return ["-" if value is None else in_three_digits(value / of_bytes.size) for value in values]

    columns = [f"{count:,}" for count in counts]
    heading = ["strategy", sharded.SPLIT, f"GPU: {columns[0]}", *columns[1:], f"node: {columns[0]}", *columns[1:]]
    body = []
    for way in dict.fromkeys(one.parallelism for one in found):
        ends = shown((shares.get((way, count)) for count in counts), "share_bytes")
        body.append(["S/N", way, *ends, *([""] * len(counts))])
        for strategy in dict.fromkeys(one.strategy for one in found if one.parallelism == way):
            records = [found.get(RowKey(strategy, table[0].size, way, count)) for count in counts]
            device, node = (shown(records, f"{name}_peak_bytes") for name in ("device_requested", "node_private"))
            body.append([f"`{strategy}`", way, *device, *node])
    [state, *_] = shown(found.values(), "state_bytes")
    yield (
        f"**{table[0].size}, planned**: S is {state} {of_bytes.name}. `GPU` is the highest peak of any rank, in "
        f"{of_bytes.name}, by the number of ranks. `node` is the private host memory of all ranks of a node, up to "
        f"{NODE_RANKS}. The rows S/N show the memory of a rank after the load."
    )
    yield from ("", *markdown_table([heading, *body], range(2, len(heading))), "")
    if lines := problems(table):
        yield from (*(f"- {line}" for line in lines), "")
