"""Writes the messages of the tables as they are now: `python -m bench.selftest.messages`. Read what has changed."""

from pathlib import Path
from tempfile import TemporaryDirectory

from bench.selftest.messages.situations import message
from bench.selftest.messages.table import TABLES, rows_of, with_messages
from bench.selftest.messages.workshop import furnish


def main() -> None:
    """Replace the messages of all tables, or of those that the installed packages can produce."""
    with TemporaryDirectory() as folder:
        furnish(Path(folder))
        for table in TABLES:
            text = table.read_text(encoding="utf-8")
            said = [message(row, Path(folder)) for row in rows_of(text)]
            table.write_text(with_messages(text, said), encoding="utf-8")


if __name__ == "__main__":
    main()
