"""What went wrong, as workflow commands of GitHub: it shows them beside the lines of a change."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bench.conformance.judge import Outcome as Judged
from bench.conformance.sweep import Cell
from bench.report.rows import Outcome

# Of one kind and step; GitHub drops the rest without a word.
MOST_OF_A_KIND = 10

# What https://github.com/actions/toolkit does, in its order.
MESSAGE_ESCAPES = (("%", "%25"), ("\r", "%0D"), ("\n", "%0A"))
PROPERTY_ESCAPES = (*MESSAGE_ESCAPES, (":", "%3A"), (",", "%2C"))


@dataclass(frozen=True)
class _Note:
    message: str
    properties: Mapping[str, str] = field(default_factory=dict)


def annotations(
    outcomes: Sequence[Outcome], cells: Sequence[Cell], complaints: Sequence[str], not_compared: Sequence[str]
) -> Iterator[str]:
    """An error for everything that fails the run, what is about the whole of it first; a warning for what cannot."""
    failed = [outcome for outcome in outcomes if outcome.verdict != "ok" and not outcome.verdict.startswith("skipped")]
    wrong = [cell for cell in cells if cell.outcome == Judged.WRONG]
    yield from _commands("error", [*map(_Note, complaints), *map(_of_outcome, failed), *map(_of_cell, wrong)])
    yield from _commands("warning", list(map(_Note, not_compared)))


def _of_outcome(outcome: Outcome) -> _Note:
    place = outcome.place
    where = {"file": place.file, "line": str(place.line), "title": place.test} if place else {}
    return _Note(outcome.verdict, where or {"title": f"{outcome.strategy}-{outcome.size}"})


def _of_cell(cell: Cell) -> _Note:
    return _Note(f"{cell.why}\n{cell.example}", {"title": f"{cell.strategy}, {cell.property}: WRONG"})


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
