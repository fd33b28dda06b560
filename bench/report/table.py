"""The table at the end of a run: in a terminal of any width, and as Markdown."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from bench.meters.process import FOUND_WRONG
from bench.record.record import FIELDS
from bench.report import budget_marks, sharded
from bench.report.legend import legend
from bench.report.peers import peer_lines
from bench.report.recommendation import best
from bench.report.rows import Problem, Row, Status, coverage, scales, stand_ins
from bench.report.text_table import aligned, markdown_table
from bench.report.unit import unit
from model.printable import LONGEST_LINE

# The columns of loads by one process, with the names of their fields.
COLUMNS = tuple((name, field.column) for name, field in FIELDS.items() if field.column)
# With every column.
ALL = max(column.spare for _, column in (*COLUMNS, *sharded.columns(())))
# Where all rows have one size, a line above the table names it.
SPARE_SIZE = 5


class _Shown(NamedTuple):
    """A column as it is shown: its heading, and a cell for each row."""

    heading: str
    cells: list[str]
    is_figure: bool = True


def terminal_lines(table: list[Row], width: int) -> list[str]:
    """Render the table in `width` columns if that is possible, then its legend, problems, and what is best here."""
    loads, most = _loads(table), ALL
    while max(map(len, lines := _rendered(columns := _shown(loads, most), aligned)), default=0) > width and most > 0:
        most -= 1
    explained = legend(table, _cells(columns), width)
    return [*above(table), *lines, *explained, *below(table), *best(table)]


def markdown(table: list[Row]) -> str:
    """Render the same as Markdown, for `$GITHUB_STEP_SUMMARY`."""
    columns = _shown(_loads(table), ALL)
    lines = _rendered(columns, markdown_table)
    explained = legend(table, _cells(columns), LONGEST_LINE)
    return "\n".join([*above(table), "", *lines, "", *explained, *below(table), "", *best(table), ""])


def _loads(table: Sequence[Row]) -> list[Row]:
    """Return the rows of loads: the legend has what the machine does at best."""
    return [row for row in table if not row.key.roofline]


def _rendered(columns: Sequence[_Shown], render: Callable[[list[list[str]], list[int]], list[str]]) -> list[str]:
    figures = [place for place, column in enumerate(columns) if column.is_figure]
    return render(_cells(columns), figures) if columns else []


def _cells(columns: Sequence[_Shown]) -> list[list[str]]:
    """Return the heading and the rows."""
    rows = zip(*(column.cells for column in columns), strict=True)
    return [[column.heading for column in columns], *map(list, rows)]


def above(table: list[Row]) -> list[str]:
    """Return the lines above a table: the scales of its figures."""
    return [*scales(table), *sharded.scales(table), *stand_ins(table)]


def below(table: list[Row]) -> list[str]:
    """Return the lines below a table: how many strategies work, refusals, and notes."""
    return [*coverage(table), *refusals(table), *notes(table)]


def notes(table: list[Row]) -> list[str]:
    """Return lines on single rows: problems, what to do about them, loads that had too little memory, and peers."""
    return [*problems(table), *repeated(table), *fates(table), *peer_lines(table)]


def cells(table: list[Row], *, whole: bool = False) -> list[list[str]]:
    """Return the heading, in `whole` words or short, and rows, with every column in which a row has a figure."""
    return _cells(_shown(table, ALL, whole=whole))


def _shown(table: Sequence[Row], most: int, *, whole: bool = False) -> list[_Shown]:
    """Return the columns without those in which no row has a figure, and those that go sooner than `most`."""
    return list(_columns(table, most, whole=whole)) if table else []


def _columns(table: Sequence[Row], most: int, *, whole: bool) -> Iterator[_Shown]:
    yield _Shown("strategy", [row.key.label for row in table], is_figure=False)
    if most >= SPARE_SIZE or len({row.size for row in table}) > 1:
        yield _Shown("size", [row.size for row in table], is_figure=False)
    of_ranks, of_bytes = any(row.key.parallelism for row in table), unit(table)
    for name, column in sharded.columns(table) if of_ranks else COLUMNS:
        texts = [column.text(row.record, name, of_bytes) for row in table]
        if any(texts) and column.spare <= most:
            # A page sorts the figures, so they have no marks there.
            marks = ["" if whole else budget_marks.mark(row.record, name, column) for row in table]
            heading = budget_marks.heading(column.title if whole else column.heading, column, table, of_bytes)
            shown = [f"{mark}{text}" if text else "-" for mark, text in zip(marks, texts, strict=True)]
            yield _Shown(heading, shown, heading != sharded.SPLIT)
    yield _Shown("verdict", [budget_marks.verdict(row) for row in table], is_figure=False)


def refusals(table: Sequence[Row]) -> list[str]:
    """Return the reasons of strategies that refused a model, each in one line after all that gave it."""
    return _reasons(table, refused=True)


def problems(table: Sequence[Row]) -> list[str]:
    """Return all other problems, in such lines."""
    return _reasons(table, refused=False)


def _reasons(table: Sequence[Row], *, refused: bool) -> list[str]:
    named: dict[Problem, dict[str, None]] = {}
    for row in table:
        reasons = {problem.reason for problem in row.problems}
        for problem in row.problems:
            # Another test of the row found the same, and says it without the name of the error.
            is_repeated = any(problem.reason == f"{error}{reason}" for error in FOUND_WRONG for reason in reasons)
            if (problem.status == Status.REFUSED) == refused and not is_repeated:
                named.setdefault(problem, {})[f"{_whose(problem, row, table)}-{row.size}"] = None
    return [f"{', '.join(names)}: {problem}" for problem, names in named.items()]


def _whose(problem: Problem, row: Row, table: Sequence[Row]) -> str:
    """Return whose problem it is: the division's or the strategy's, if all of those loads have it, or the row's."""
    if not row.key.parallelism:
        return row.name
    of_division = [one for one in table if (one.size, one.key.division) == (row.size, row.key.division)]
    if len(of_division) > 1 and all(problem in one.problems for one in of_division):
        return f"{row.key.parallelism} x{row.key.ranks}"
    of_strategy = [one for one in table if one.key.parallelism and one.key[:2] == row.key[:2]]
    if all(problem in one.problems for one in of_strategy):
        return row.key.strategy
    return row.name


def repeated(table: Sequence[Row]) -> list[str]:
    """Return the line that says how to look into what failed; none if nothing did."""
    failed = dict.fromkeys(row.key.strategy for row in table if row.has_failed and not row.key.roofline)
    names = " or ".join(failed)
    quoted = f"'{names}'" if len(failed) > 1 else names
    return [f"To look into what failed, repeat with: -k {quoted} --explain"] if failed else []


def fates(table: list[Row]) -> list[str]:
    """Return how loads ended that were given too little memory, a line each."""
    return [f"{row.key.title}: {row.record.fate}" for row in table if row.record.fate]
