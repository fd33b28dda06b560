"""The conformance table as a grid for the page: what became of every strategy and property, and why."""

from collections.abc import Sequence
from typing import NamedTuple

from bench.conformance.judge import CellStatus
from bench.conformance.sweep import Cell
from bench.report.conformance import WORDS, cell_lines, is_fit, meaning


class Square(NamedTuple):
    """A cell in a word, why, in lines, and how it is to be seen: what does not fit is refused with right."""

    word: str
    outcome: str
    why: str


class Grid(NamedTuple):
    """Properties with what they mean, and a row a strategy: None where it was not asked."""

    columns: list[tuple[str, str]]
    rows: list[tuple[str, list[Square | None]]]


def grid(cells: Sequence[Cell]) -> Grid:
    """The grid of a run's cells."""
    found = {(cell.strategy, cell.property): cell for cell in cells}
    columns = list(dict.fromkeys(cell.property for cell in cells))
    strategies = list(dict.fromkeys(cell.strategy for cell in cells))
    rows = [(strategy, [_square(found.get((strategy, column))) for column in columns]) for strategy in strategies]
    return Grid([(column, meaning(column)) for column in columns], rows)


def _square(cell: Cell | None) -> Square | None:
    if cell is None:
        return None
    why = "" if cell.outcome == CellStatus.PASSED else "\n".join(cell_lines(cell))
    right = cell.outcome == CellStatus.REFUSED and not is_fit(cell)
    return Square(WORDS[cell.outcome], "passed" if right else cell.outcome.value.lower(), why)
