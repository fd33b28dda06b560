"""The conformance table: strategies in rows, properties in columns, as Markdown that is legible in a terminal."""

from collections.abc import Iterator, Sequence

from bench.conformance.judge import CellStatus
from bench.conformance.properties import PROPERTIES
from bench.conformance.sweep import Cell

# Of what is wrong with one model.
MOST_LINES = 3
# Of what a loader of the user's is warned of.
MOST_OTHERS = 5

WORDS = {
    CellStatus.PASSED: "ok",
    CellStatus.REFUSED: "refused",
    CellStatus.WRONG: "WRONG",
    CellStatus.DIED: "DIED",
    CellStatus.TOLERATED: "tolerated",
}
BAD = (CellStatus.WRONG, CellStatus.DIED)


def conformance_lines(cells: Sequence[Cell], width: int, *, whole: bool) -> list[str]:
    """The table, if it is wanted `whole`, in as many parts as `width` columns need, and every cell explained.

    Otherwise a line, and what came back wrong.
    """
    bad = [cell for cell in cells if cell.outcome in BAD]
    wrong = [line for cell in bad if not cell.is_own for line in cell_lines(cell)]
    wrong += warnings([cell for cell in bad if cell.is_own])
    if not whole:
        return [*wrong, *summary(cells), "--conformance prints the table"]
    refusals = [cell for cell in cells if cell.outcome == CellStatus.REFUSED and is_fit(cell)]
    refused = [line for cell in refusals for line in cell_lines(cell)]
    columns = list(dict.fromkeys(cell.property for cell in cells))
    meanings = [f"- {name}: {meaning(name)}" for name in columns]
    return [*_table(cells, columns, width), *meanings, "", *wrong, *refused, *([""] * bool(refused)), *summary(cells)]


def warnings(bad: Sequence[Cell]) -> Iterator[str]:
    """Warn of the user's loaders: an example for each, and the names of its other bad properties."""
    for strategy in dict.fromkeys(cell.strategy for cell in bad):
        first, *others = (cell for cell in bad if cell.strategy == strategy)
        yield f"WARNING: {strategy}, {first.property}: {meaning(first.property)}"
        yield from (f"    {line}" for line in shortened(first.why.splitlines(), MOST_LINES))
        if first.example:
            yield f"    The smallest model: {first.example}"
        names = [cell.property for cell in others]
        yield from (f"WARNING: {strategy}, {name}: {meaning(name)}" for name in names[:MOST_OTHERS])
        if len(names) > MOST_OTHERS:
            yield f"WARNING: {strategy}: {', '.join(names[MOST_OTHERS:])}"
        yield f"    To accept this: --tolerate {','.join((first.property, *names))}"


def is_fit(cell: Cell) -> bool:
    return PROPERTIES[cell.property].fits


def meaning(name: str) -> str:
    row = PROPERTIES[name]
    return row.meaning if row.fits else f"a checkpoint that does not fit: {row.meaning}"


def summary(cells: Sequence[Cell]) -> Iterator[str]:
    """Yield the counts of cells, in lines that fit every terminal."""

    def count(outcome: CellStatus, *, fits: bool) -> int:
        return sum(cell.outcome == outcome and is_fit(cell) == fits for cell in cells)

    wrong = sum(cell.outcome == CellStatus.WRONG and not cell.is_own for cell in cells)
    died = sum(cell.outcome == CellStatus.DIED and not cell.is_own for cell in cells)
    warned = sum(cell.outcome in BAD and cell.is_own for cell in cells)
    tolerated = sum(cell.outcome == CellStatus.TOLERATED for cell in cells)
    yield (
        f"{sum(cell.examples for cell in cells):,} models drawn: {count(CellStatus.PASSED, fits=True)} cells ok, "
        f"{count(CellStatus.REFUSED, fits=True)} refused with an error, {wrong} silently wrong"
        f"{f', {died} ended their process' if died else ''}"
        f"{f', {warned} with a warning' if warned else ''}{f', {tolerated} tolerated' if tolerated else ''}"
    )
    if misfits := count(CellStatus.REFUSED, fits=False):
        yield f"{misfits} cells of checkpoints that do not fit: refused, as they have to be"


def _table(cells: Sequence[Cell], columns: Sequence[str], width: int) -> Iterator[str]:
    found = {(cell.strategy, cell.property): WORDS[cell.outcome] for cell in cells}
    strategies = list(dict.fromkeys(cell.strategy for cell in cells))
    names = ["strategy", *strategies]
    bodies = [[column, *(found.get((strategy, column), "-") for strategy in strategies)] for column in columns]
    for part in _parts(bodies, width - _width(names) - len("|")):
        rows = list(zip(*(_padded(column) for column in (names, *part)), strict=True))
        ruler = ["-" * len(cell) for cell in rows[0]]
        yield from (f"| {' | '.join(row)} |" for row in (rows[0], ruler, *rows[1:]))
        yield ""


def _parts(bodies: Sequence[list[str]], width: int) -> Iterator[list[list[str]]]:
    """Split columns into parts that fit, each of at least one."""
    part: list[list[str]] = []
    for body in bodies:
        if part and sum(map(_width, (*part, body))) > width:
            yield part
            part = []
        part.append(body)
    yield part


def _width(column: list[str]) -> int:
    """Return the width of a column with its separator."""
    return max(map(len, column)) + len(" | ")


def _padded(column: list[str]) -> list[str]:
    longest = max(map(len, column))
    return [cell.ljust(longest) for cell in column]


def shortened(lines: Sequence[str], most: int) -> list[str]:
    """Return the first lines, and how many more there are."""
    return [*lines[:most], *([f"and {len(lines) - most:,} more"] if len(lines) > most else [])]


def cell_lines(cell: Cell) -> Iterator[str]:
    """Explain a cell by its smallest model."""
    first, *more = cell.why.splitlines() or [""]
    yield f"{cell.strategy}, {cell.property}: {WORDS[cell.outcome]}: {first}"
    yield from (f"    {line}" for line in shortened(more, MOST_LINES))
    if cell.example:
        yield f"    {cell.example}"
