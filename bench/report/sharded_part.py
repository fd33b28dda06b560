"""The part of the README about loads by many processes: a table as runs print it, and what plans say of many ranks."""

from collections.abc import Iterable, Iterator, Sequence

from bench.history.record import Record
from bench.ranks.team import NODE_RANKS
from bench.report import sharded
from bench.report.aligned import markdown_table
from bench.report.formats import in_three_digits
from bench.report.marked import Marked
from bench.report.readme import COLUMNS
from bench.report.recorded import Recorded
from bench.report.rows import Division, Row, rows
from bench.report.table import problems, terminal_lines


def _lines(runs: Sequence[Recorded]) -> Iterator[str]:
    """What was measured run by run, what was planned by the size of the model.

    Raises `ValueError` for a run that has nothing to do with many processes.
    """
    for run in runs:
        if not any(row.division for row in run.rows):
            raise ValueError(f"--sharded: in run {run.run.number} one process loads a model by itself")
    plans = [run for run in runs if any(outcome.record.get("planned") for outcome in run.outcomes)]
    for run in runs:
        if run not in plans:
            yield from ("```text", *terminal_lines(run.rows, COLUMNS), "```", "")
    planned = rows(outcome for run in plans for outcome in run.outcomes)
    for size in dict.fromkeys(row.size for row in planned):
        yield from _planned([row for row in planned if row.size == size])


SHARDED = Marked("sharded", _lines)


def _planned(table: Sequence[Row]) -> Iterator[str]:
    """One size: a row a strategy and way to divide the model, and of every number of ranks two figures."""
    unit = sharded.unit(table)
    found = {row.division: row.record for row in table if row.division and "share_bytes" in row.record}
    counts = sorted({one.ranks for one in found})
    shares = {(one.parallelism, one.ranks): record for one, record in found.items()}

    def shown(records: Iterable[Record | None], name: str) -> list[str]:
        return [in_three_digits(record[name] / unit.size) if record and name in record else "-" for record in records]

    columns = [f"{count:,}" for count in counts]
    heading = ["strategy", sharded.SPLIT, f"device: {columns[0]}", *columns[1:], f"node: {columns[0]}", *columns[1:]]
    body = []
    for way in dict.fromkeys(one.parallelism for one in found):
        ends = shown((shares.get((way, count)) for count in counts), "share_bytes")
        body.append(["S/N", way, *ends, *([""] * len(counts))])
        for strategy in dict.fromkeys(one.strategy for one in found if one.parallelism == way):
            records = [found.get(Division(strategy, way, count)) for count in counts]
            device, node = (shown(records, f"{name}_peak_bytes") for name in ("device_requested", "node_private"))
            body.append([f"`{strategy}`", way, *device, *node])
    [state, *_] = shown(found.values(), "state_bytes")
    yield (
        f"**{table[0].size}, planned**: S is {state} {unit.name}. By the number of ranks, {unit.name} on the device of "
        f"the one that takes most, and the S/N that it ends with; then {unit.name} of host memory that nobody can take "
        f"back, of all ranks of a node together, which has up to {NODE_RANKS}."
    )
    yield from ("", *markdown_table([heading, *body], range(2, len(heading))), "")
    if said := problems(list(table)):
        yield from (*(f"- {problem}" for problem in said), "")
