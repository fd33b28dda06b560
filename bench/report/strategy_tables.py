"""Tables of documents that list strategies. Bounds follow `STRATEGIES`; the text of existing rows is kept."""

import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.conformance.properties import PROPERTIES, columns
from bench.strategies import STRATEGIES, Strategy

_TABLE = re.compile(r"^\| (?:strategy|cast by) .*\n(?:\|.*\n)+", re.MULTILINE)
_NAMES = re.compile(r"(?<=a comma list of )[\w, ]+(?=; all: these; peers:)")

# Makes the cells of a strategy's row. Its words stand in the row that there is, or else in the recipe's docstring.
_Cells = Callable[[Strategy, Sequence[str], str], list[str]]


def _take_it_when(strategy: Strategy, _: Sequence[str], words: str) -> list[str]:
    bounds = strategy.bounds
    link = f"[`{strategy.name}`](bench/strategies/{Path(strategy.source).name})"
    return [link, bounds.device, bounds.host.replace("R", "64 MiB"), words]


def _loads(strategy: Strategy, _: Sequence[str], words: str) -> list[str]:
    return [f"[`{strategy.name}`]({Path(strategy.source).name})", words, *_bounds(strategy)]


def _casts(strategy: Strategy, _: Sequence[str], words: str) -> list[str]:
    return [f"`{strategy.name}`", words, *_bounds(strategy.partial())]


def _bounds(strategy: Strategy) -> list[str]:
    bounds = strategy.bounds
    locked = ", page-locked" * (bounds.pinned == "R")
    return [
        bounds.device,
        bounds.host + _mapped(bounds.file_moved or "") + locked,
        bounds.cpu + _mapped(bounds.file),
    ]


def _mapped(file: str) -> str:
    return f", and {file} file-backed" if file not in {"", "0"} else ""


def _promises(strategy: Strategy, headings: Sequence[str], _: str) -> list[str]:
    tried, refused = columns(strategy), strategy.refused("cpu")
    cells = [
        ("refused" if name in refused or not PROPERTIES[name].fits else "ok") if name in tried else "-"
        for name in headings[1:]
    ]
    return [strategy.name, *cells]


# By the document, and the first heading of a table: the place of the words in a row, and its cells.
TABLES: dict[tuple[str, str], tuple[int | None, _Cells]] = {
    ("README.md", "strategy"): (3, _take_it_when),
    ("bench/strategies/README.md", "strategy"): (1, _loads),
    ("bench/strategies/README.md", "cast by"): (1, _casts),
    ("bench/conformance/README.md", "strategy"): (None, _promises),
}
DOCUMENTS = tuple(dict.fromkeys((*(document for document, _ in TABLES), "bench/README.md")))


def with_strategies(document: str, text: str) -> str:
    """Return the text of one of `DOCUMENTS` with its tables as `STRATEGIES` has them; new rows come last."""
    text = _TABLE.sub(lambda match: _table(document, match[0]), text)
    return _NAMES.sub(", ".join(STRATEGIES), text)


def _table(document: str, table: str) -> str:
    headings, _, *rows = ([cell.strip() for cell in line.strip("| \n").split(" | ")] for line in table.splitlines())
    if (document, headings[0]) not in TABLES:
        return table
    place, cells = TABLES[document, headings[0]]
    known = {re.sub(r"[`\[]|\].*", "", row[0]): row for row in rows}
    names = [*(name for name in known if name in STRATEGIES), *(name for name in STRATEGIES if name not in known)]
    found = [headings]
    for name in names:
        words = known[name][place] if place is not None and name in known else _words(STRATEGIES[name])
        found.append(cells(STRATEGIES[name], headings, words))
    widths = [max(len(row[column]) for row in found) if place is None else 3 for column in range(len(headings))]
    found.insert(1, ["-" * width for width in widths])
    if place is None:
        found = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in found]
    return "".join(f"| {' | '.join(row)} |\n" for row in found)


def _words(strategy: Strategy) -> str:
    """Return the first sentence of a recipe's docstring, as it stands in a table."""
    sentence = (inspect.getdoc(strategy.function) or strategy.name).splitlines()[0].rstrip(".")
    return sentence[:1].lower() + sentence[1:]
