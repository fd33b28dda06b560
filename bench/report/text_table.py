"""Tables for a terminal, and for Markdown."""

import textwrap
from collections.abc import Collection, Iterable, Sequence

from model.printable import LONGEST_LINE, printable

Cells = Sequence[Sequence[str]]


def wrapped(lines: Iterable[str], width: int) -> list[str]:
    """Break lines at blanks, so that each has `width` columns at most; lines that begin with four blanks stay whole.

    What goes on with an item of a list, which begins with two blanks, begins with four.
    """
    found = []
    for line in lines:
        if line.startswith("    ") or not line:
            found.append(line)
            continue
        indent = "    " if line.startswith("  ") else ""
        found += textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return found


def aligned(cells: Cells, figures: Collection[int]) -> list[str]:
    """Align the cells, a line a row: columns with `figures` to the right, all others to the left."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if column in figures else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def fitting(cells: Cells, figures: Collection[int], spare: Sequence[int], width: int) -> list[str]:
    """Align the cells in `width` columns if that is possible: the columns `spare` are left out, the first one first."""
    for many in range(len(spare) + 1):
        kept = [column for column in range(len(cells[0])) if column not in spare[:many]]
        lines = aligned(
            [[row[column] for column in kept] for row in cells], [kept.index(f) for f in figures if f in kept]
        )
        if max(map(len, lines)) <= width:
            break
    return lines


def markdown_table(cells: Cells, figures: Collection[int]) -> list[str]:
    """Heading, ruler and rows."""
    heading, *body = cells
    ruler = ["---:" if column in figures else "---" for column in range(len(heading))]
    return ["| " + " | ".join(map(_in_a_cell, row)) + " |" for row in (heading, ruler, *body)]


def _in_a_cell(text: str) -> str:
    """Return a text that stays in its cell: a name may have a bar, or a line break."""
    return printable(text, LONGEST_LINE).replace("|", "\\|")
