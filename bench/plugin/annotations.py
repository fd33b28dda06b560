"""Failures as workflow commands of GitHub Actions, which shows them beside the changed lines."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

# Of one kind and step; GitHub drops the rest without a word.
MOST_OF_A_KIND = 10

# What https://github.com/actions/toolkit does, in its order.
MESSAGE_ESCAPES = (("%", "%25"), ("\r", "%0D"), ("\n", "%0A"))
PROPERTY_ESCAPES = (*MESSAGE_ESCAPES, (":", "%3A"), (",", "%2C"))


@dataclass(frozen=True)
class FailedTest:
    """A test that failed: its file, from the root of the repository, its line and name, and a line that says why.

    `file` is empty if the suite is no part of the repository that the job is of.
    """

    file: str
    line: int
    name: str
    reason: str


@dataclass(frozen=True)
class _Note:
    message: str
    properties: Mapping[str, str] = field(default_factory=dict)


def annotations(
    failures: Sequence[FailedTest], complaints: Sequence[str], not_compared: Sequence[str]
) -> Iterator[str]:
    """Yield an error for each failure, those of the whole run first, and a warning for what was not compared."""
    yield from _commands("error", [*map(_Note, complaints), *map(_of_failure, failures)])
    yield from _commands("warning", list(map(_Note, not_compared)))


def _of_failure(failure: FailedTest) -> _Note:
    place = {"file": failure.file, "line": str(failure.line)} if failure.file else {}
    return _Note(failure.reason, {**place, "title": failure.name})


def _commands(kind: str, notes: Sequence[_Note]) -> Iterator[str]:
    kept = notes if len(notes) <= MOST_OF_A_KIND else notes[: MOST_OF_A_KIND - 1]
    for note in kept:
        yield _command(kind, note)
    if more := len(notes) - len(kept):
        yield _command(kind, _Note(f"and {more} more: the log has them all"))


def _command(kind: str, note: _Note) -> str:
    properties = ",".join(f"{name}={_escaped(value, PROPERTY_ESCAPES)}" for name, value in note.properties.items())
    return f"::{kind}{' ' if properties else ''}{properties}::{_escaped(note.message, MESSAGE_ESCAPES)}"


def _escaped(text: str, escapes: Sequence[tuple[str, str]]) -> str:
    for plain, escaped in escapes:
        text = text.replace(plain, escaped)
    return text
