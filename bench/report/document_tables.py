"""Tables of documents that are generated from declared fields and `STRATEGIES`: `python -m bench.report --tables`."""

import re
from collections.abc import Iterator
from pathlib import Path

from bench.history.run_files import write_whole
from bench.record.formats import GIB
from bench.record.record import FIELDS
from bench.report.strategy_tables import DOCUMENTS, with_strategies
from bench.report.table import COLUMNS
from bench.report.text_table import markdown_table


def document_tables() -> dict[str, list[str]]:
    """Return the lines of each table, by the document that it stands in, a path from the root of the checkout.

    A table stands between `<!-- table -->` and `<!-- end of table -->`.
    """
    fields = [[f"`{name}`", field.about] for name, field in FIELDS.items()]
    return {
        "results/README.md": markdown_table([["field", "meaning"], *fields], ()),
        "bench/report/README.md": markdown_table([["column", "meaning"], *_columns()], ()),
    }


def _columns() -> Iterator[list[str]]:
    """Yield the heading of every column with its meaning; those that have both alike once."""
    yield ["`strategy`, `size`", "the strategy, and the GPT-2 size or the name of your model"]
    rows = [
        (f"`{column.heading.format(unit=GIB.name)}`", column.about or FIELDS[name].about) for name, column in COLUMNS
    ]
    yield from map(list, dict.fromkeys(rows))
    verdict = (
        "`ok`: all checks passed, or with a budget `fits` or `too big`; `FAILED`; `refused` (the strategy says why it "
        "cannot load this model) or `skipped`"
    )
    yield ["`verdict`", verdict]


def with_table(text: str, lines: list[str]) -> str:
    """Return a document's text with the lines of its table."""
    table = "\n".join(["<!-- table -->", *lines, "<!-- end of table -->"])
    return re.sub(r"<!-- table -->\n.*?<!-- end of table -->", lambda _: table, text, flags=re.DOTALL)


def write_tables(root: Path) -> None:
    """Write the tables into the documents of a checkout."""
    for name, lines in document_tables().items():
        document = root / name
        write_whole(document, with_table(document.read_text(encoding="utf-8"), lines).encode())
    for name in DOCUMENTS:
        document = root / name
        write_whole(document, with_strategies(name, document.read_text(encoding="utf-8")).encode())
