"""The verdict on a run, in a few sentences."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bench.history.schema import FAILED, INTERRUPTED, PASSED
from bench.meters import recorded_kind
from bench.report.comparison_section import changes_in_words
from bench.report.recommendation import best
from bench.report.recorded import Recorded
from bench.report.rows import Row, coverage, listed

PARTIAL = "partial"


class RunVerdict(NamedTuple):
    """A run's outcome, a class of style, the headline, what that means, and which strategies are best, a line each."""

    outcome: str
    style: str
    headline: str
    sentence: str
    best: list[str]


def verdict(recorded: Recorded) -> RunVerdict:
    """Return the verdict of a recorded run; if it passed without some strategies, the headline is how many worked.

    The page lists the reasons of those that did not.
    """
    outcome, partial = recorded.run.outcome, coverage(recorded.rows)
    headline, style = f"{outcome.capitalize()}.", outcome
    if outcome == PASSED and partial:
        headline, style = " ".join(f"{line}." for line in partial), PARTIAL
    missing = [line for line in partial if not any(line in text for text in (headline, *recorded.complaints))]
    sentences = _sentences(recorded, missing)
    return RunVerdict(outcome, style, headline, " ".join(sentences), best(recorded.rows))


def _sentences(recorded: Recorded, partial: Sequence[str]) -> Iterator[str]:
    loads = [row for row in recorded.rows if row.record.strategy is not None and not row.was_skipped]
    wrong = list(_failures(recorded, loads))
    yield from wrong
    if recorded.run.outcome == INTERRUPTED:
        yield "Stopped before its end."
    yield from (f"{complaint}." for complaint in recorded.complaints)
    if changes := changes_in_words(recorded.changes):
        wrong.append(changes)
        yield f"{changes}{', and accepted' if recorded.accepted else ' than in the runs before'}."
    if recorded.run.outcome == FAILED and not wrong and not recorded.complaints:
        yield "What failed it is not recorded."
    yield from (f"{line}." for line in partial)
    if loads and not any(row.problems for row in loads):
        yield _all_well(loads)


def _failures(recorded: Recorded, loads: Sequence[Row]) -> Iterator[str]:
    failed = [row.key.title for row in loads if row.problems]
    if failed:
        yield f"{len(failed)} of {len(loads)} loads failed: {listed(failed)}."
    theirs = [_named_in_tests(row) for row in loads if row.problems]
    others = [test for test in recorded.failed if not any(f"[{name}-" in test for name in theirs)]
    if others:
        yield f"{len(others)} {'test' if len(others) == 1 else 'tests'} failed: {listed(others)}."


def _named_in_tests(row: Row) -> str:
    """Return the name of the row in the ids of its tests, as far as all of them have it."""
    key = row.key
    return f"{key.strategy}-{key.parallelism}-{key.size}-x{key.ranks}" if key.parallelism else key.title


def _all_well(loads: Sequence[Row]) -> str:
    """Say what is true of all loads that were measured."""
    strategies, sizes = {row.key.strategy for row in loads}, {row.size for row in loads}
    many = f"{len(strategies)} strateg{'y' if len(strategies) == 1 else 'ies'}"
    several = f" in {len(sizes)} sizes" if len(sizes) > 1 else ""
    if ranks := sorted({row.key.ranks for row in loads if row.key.parallelism}):
        several += f" for {', '.join(f'{count:,}' for count in ranks)} ranks"
    right = "every weight is right" if any(map(_has_values, loads)) else "every name, dtype and shape is right"
    metered = any(row.record.host_total_peak_bytes is not None for row in loads)
    done = "planned" if all(row.record.planned for row in loads) else "measured"
    return f"{many}{several} {done}: {right}{', and every peak is what theory says' if metered else ''}."


def _has_values(row: Row) -> bool:
    """Return True if the loaded weights had values; those of a timed load always have."""
    real = recorded_kind(row.record.device).has_values and not row.record.planned
    return real or row.record.first_logits_seconds is not None
