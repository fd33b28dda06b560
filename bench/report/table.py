"""The table at the end of a run: in a terminal of any width, and as Markdown."""

from collections.abc import Sequence

from bench.record.formats import GIB
from bench.record.record import FIELDS
from bench.report import sharded
from bench.report.peers import peer_lines
from bench.report.recommendation import best
from bench.report.rows import Problem, Row, Status, coverage, scales, stand_ins
from bench.report.text_table import aligned, markdown_table

# The columns of loads by one process, with the names of their fields.
COLUMNS = tuple((name, field.column) for name, field in FIELDS.items() if field.column)
# With every column.
ALL = max(column.spare for _, column in (*COLUMNS, *sharded.columns(())))


def terminal_lines(table: list[Row], width: int) -> list[str]:
    """Render the table in `width` columns if that is possible, then problems, and what is best here."""
    most = ALL
    while max(map(len, lines := aligned(shown := cells(table, most), _figures(shown)))) > width and most > 0:
        most -= 1
    return [*above(table), *lines, *below(table), *best(table)]


def markdown(table: list[Row]) -> str:
    """Render the same as Markdown, for `$GITHUB_STEP_SUMMARY`."""
    shown = cells(table)
    lines = markdown_table(shown, _figures(shown))
    return "\n".join([*above(table), "", *lines, "", *below(table), "", *best(table), ""])


def above(table: list[Row]) -> list[str]:
    """Return the lines above a table: the scales of its figures."""
    return [*scales(table), *sharded.scales(table), *stand_ins(table)]


def below(table: list[Row]) -> list[str]:
    """Return the lines below a table: how many strategies work, refusals, and notes."""
    return [*coverage(table), *refusals(table), *notes(table)]


def notes(table: list[Row]) -> list[str]:
    """Return lines on single rows: problems, loads that had too little memory, and peers."""
    return [*problems(table), *fates(table), *peer_lines(table)]


def cells(table: list[Row], most: int = ALL, *, whole: bool = False) -> list[list[str]]:
    """Return the heading, in `whole` words or short, and rows.

    Left out are columns in which no row has a figure, and those that go sooner than `most`.
    """
    heading, body = ["strategy", "size"], [[row.key.label, row.size] for row in table]
    of_ranks = any(row.key.parallelism for row in table)
    unit = sharded.unit(table) if of_ranks else GIB
    for name, column in sharded.columns(table) if of_ranks else COLUMNS:
        shown = [column.text(row.record, name, unit) for row in table]
        if any(shown) and column.spare <= most:
            heading.append(column.title.format(unit=unit.name) if whole else column.heading)
            for line, figure in zip(body, shown, strict=True):
                line.append(figure or "-")
    for line, row in zip(body, table, strict=True):
        line.append(row.status)
    return [[*heading, "verdict"], *body]


def _figures(cells: list[list[str]]) -> range:
    """The columns between the names and the verdict."""
    return range(2 + (sharded.SPLIT in cells[0]), len(cells[0]) - 1)


def refusals(table: Sequence[Row]) -> list[str]:
    """Return the reasons of strategies that refused a model, each in one line after all that gave it."""
    return _reasons(table, refused=True)


def problems(table: Sequence[Row]) -> list[str]:
    """Return all other problems, in such lines."""
    return _reasons(table, refused=False)


def _reasons(table: Sequence[Row], *, refused: bool) -> list[str]:
    named: dict[Problem, dict[str, None]] = {}
    for row in table:
        for problem in row.problems:
            if (problem.status == Status.REFUSED) == refused:
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


def fates(table: list[Row]) -> list[str]:
    """Return how loads ended that were given too little memory, a line each."""
    return [f"{row.key.title}: {row.record.fate}" for row in table if row.record.fate]
