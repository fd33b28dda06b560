"""Tables of messages: files of text that are read as they stand.

A line that begins with `== ` names the situation of the rows below it. A row is a line that begins with `$ `, with the
arguments of `pytest bench` after the environment variables, and a line with the message.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
TABLES = tuple(sorted(FOLDER.glob("*.txt")))
SITUATION, COMMAND = "== ", "$ "


@dataclass(frozen=True)
class Row:
    """A command line in a situation, and the message that it ends in."""

    situation: str
    command: str
    message: str


def rows_of(text: str) -> Iterator[Row]:
    """Yield the rows of a table."""
    situation = ""
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith(SITUATION):
            situation = line.removeprefix(SITUATION)
        elif line.startswith(COMMAND):
            yield Row(situation, line.removeprefix(COMMAND), next(lines, ""))


def with_messages(text: str, messages: Iterable[str]) -> str:
    """Return a table with other messages, in the order of its rows."""
    lines, found = text.splitlines(), iter(messages)
    for number, line in enumerate(lines):
        if line.startswith(COMMAND):
            lines[number + 1] = next(found)
    return "\n".join([*lines, ""])


def all_rows() -> list[Row]:
    """Return the rows of all tables."""
    return [row for table in TABLES for row in rows_of(table.read_text(encoding="utf-8"))]
