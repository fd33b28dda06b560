"""What went wrong, as workflow commands of GitHub: it shows them beside the lines of a change."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

# Of one kind and step; GitHub drops the rest without a word.
MOST_OF_A_KIND = 10

# What https://github.com/actions/toolkit does, in its order.
MESSAGE_ESCAPES = (("%", "%25"), ("\r", "%0D"), ("\n", "%0A"))
PROPERTY_ESCAPES = (*MESSAGE_ESCAPES, (":", "%3A"), (",", "%2C"))


@dataclass(frozen=True)
class FailedTest:
    """A test that failed, where it begins, and why, in a line; the file is seen from the root of the repository."""

    file: str
    line: int
    name: str
    why: str


@dataclass(frozen=True)
class _Note:
    message: str
    properties: Mapping[str, str] = field(default_factory=dict)


def annotations(
    failures: Sequence[FailedTest], complaints: Sequence[str], not_compared: Sequence[str]
) -> Iterator[str]:
    """An error for everything that fails the run, what is about the whole of it first; a warning for what cannot."""
    yield from _commands("error", [*map(_Note, complaints), *map(_of_failure, failures)])
    yield from _commands("warning", list(map(_Note, not_compared)))


def _of_failure(failure: FailedTest) -> _Note:
    return _Note(failure.why, {"file": failure.file, "line": str(failure.line), "title": failure.name})


def _commands(kind: str, notes: Sequence[_Note]) -> Iterator[str]:
    shown = notes if len(notes) <= MOST_OF_A_KIND else notes[: MOST_OF_A_KIND - 1]
    for note in shown:
        yield _command(kind, note)
    if more := len(notes) - len(shown):
        yield _command(kind, _Note(f"and {more} more: the log has them all"))


def _command(kind: str, note: _Note) -> str:
    properties = ",".join(f"{name}={_escaped(value, PROPERTY_ESCAPES)}" for name, value in note.properties.items())
    return f"::{kind}{' ' if properties else ''}{properties}::{_escaped(note.message, MESSAGE_ESCAPES)}"


def _escaped(text: str, escapes: Sequence[tuple[str, str]]) -> str:
    for plain, escaped in escapes:
        text = text.replace(plain, escaped)
    return text
