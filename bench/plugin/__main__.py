"""Writes the table of options into `bench/README.md`: `python -m bench.plugin`."""

import re
from pathlib import Path

from bench.history.run_files import write_whole
from bench.plugin.option import markdown_table
from bench.plugin.options import OPTIONS

DOCUMENT = Path(__file__).parents[1] / "README.md"


def main(document: Path = DOCUMENT) -> None:
    """Replace the table of a document. Raises `ValueError` if it has none."""
    text, count = re.subn(
        r"^\| option \| meaning \|\n(\|.*\n)+",
        lambda _: f"{markdown_table(OPTIONS)}\n",
        document.read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    if count != 1:
        raise ValueError(f"{document} has {count} tables of options, where there has to be one")
    write_whole(document, text.encode())


if __name__ == "__main__":
    main()
