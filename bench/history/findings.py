"""Findings: figures of a run that differ from those of the runs before it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median

from bench.history.baselines import Baselines
from bench.history.foresight import Window, foresee, same_level
from bench.history.runs import Change, Key, Run
from bench.history.spread import FEWEST, WINDOW, expected
from bench.record.field import Field, format_figure, title
from bench.record.record import BYTES, LIMIT, SECONDS, Record

GREW, SLOWER, GONE, BUSY, SHRANK, FASTER = "GREW", "SLOWER", "GONE", "busy", "shrank", "faster"
REGRESSIONS = (GREW, SLOWER, GONE)
GAINS = (SHRANK, FASTER)

# Where every slow-down by more than this fraction would be found, nothing is said of those that would not.
SEEN_WELL = 0.10


@dataclass(frozen=True)
class Finding:
    """A figure that changed, which way, and what it was held against, in words."""

    verdict: str
    change: Change
    against: str


def byte_changes(baselines: Baselines, key: Key, record: Record, threshold: float) -> Iterator[Finding]:
    """Every figure in bytes that grew or shrank by more than `threshold`, a fraction.

    What is exact is held against the lowest that was recorded since someone accepted a growth: neither a run without
    comparison nor one little step a night moves that. What is looked at from outside is held against the median.
    """
    for figure in BYTES:
        now, before = record.value(figure.name), baselines.values(key, figure)
        if not before:
            continue
        if now is None:
            yield _gone(key, figure, before)
            continue
        slack = figure.slack(planned=key.planned)
        if slack:
            before = before[-WINDOW:]
            then, run = median(value for _, value in before), before[-1][0]
        else:
            then = min(value for _, value in before)
            run = next(run for run, value in reversed(before) if value == then)
        if abs(now - then) > max(threshold * then, slack):
            against = f"median of {len(before)} runs" if slack and len(before) > 1 else run.number
            yield Finding(GREW if now > then else SHRANK, Change(key, figure.name, then, now, run.name), against)


@dataclass(frozen=True)
class Unseen:
    """A time of which the spread of so many runs hides every slow-down `below` a fraction."""

    key: Key
    figure: str
    below: float
    runs: int


@dataclass(frozen=True)
class TimeComparison:
    """Comparison of the times of a run: the number of figures `judged`, and the findings.

    `waiting`: benchmarks of which there are so many runs, too few to tell a spread. `unseen`: figures of which only
    slow-downs beyond `SEEN_WELL` and the threshold would have been found, and none was.
    """

    judged: int
    findings: list[Finding]
    waiting: dict[Key, int]
    unseen: tuple[Unseen, ...] = ()


def time_changes(baselines: Baselines, records: Mapping[Key, Record], threshold: float) -> TimeComparison:
    """Every figure in seconds that is beyond what its window lets expect, and changed by more than `threshold`.

    The window are the last runs on this machine with this set-up, from where their level last moved; see
    `spread.expected` for the statistic, and `foresee` for machines that other work slows down. What is slower while
    the machine's own limit is lower too is not judged: a regression is still there when the machine has time again.
    """
    windows, waiting, findings, unseen = [], {}, [], []
    for key, record in records.items():
        for figure in SECONDS:
            now, before = record.value(figure.name), baselines.values(key, figure)
            if figure.name == "first_logits_seconds":
                before = [(run, value) for run, value in before if _first_use(run.records[key]) == _first_use(record)]
            before = before[-WINDOW:]
            if before and now is None:
                findings.append(_gone(key, figure, before))
            elif now and len(before) >= FEWEST:
                windows.append((key, figure, now, before))
            elif now and before:
                waiting[key] = len(before)
    foreseen = foresee([Window(before, key, records[key].limit_bytes_per_second) for key, _, _, before in windows])
    for (key, figure, now, before), (then, lowest, highest, runs, limited) in zip(windows, foreseen, strict=True):
        slowest = max(highest, then * (1 + threshold))
        if now > slowest or now < min(lowest, then / (1 + threshold)):
            verdict = FASTER if now < then else BUSY if _busy(baselines, key, records[key], len(windows)) else SLOWER
            beside = " beside their limit" if limited else ""
            against = f"{runs} runs{beside}: {lowest:.3g} to {highest:.3g}"
            findings.append(Finding(verdict, Change(key, figure.name, then, now, before[-1][0].name), against))
        elif slowest > then * (1 + max(threshold, SEEN_WELL)):
            unseen.append(Unseen(key, figure.name, slowest / then - 1, runs))
    return TimeComparison(len(windows), findings, waiting, tuple(unseen))


def _first_use(record: Record) -> str:
    """Return the use until which "first logits" were timed; the first records lack it, and had logits."""
    return record.first_use or "logits"


def _busy(baselines: Baselines, key: Key, record: Record, figures: int) -> bool:
    """Return True if the machine's limit was lower beside this load than chance explains: others kept it busy.

    Where it stays lower, that becomes its level, and explains nothing any more.
    """
    now, before = (
        record.limit_bytes_per_second,
        [value for _, value in same_level(baselines.values(key, LIMIT)[-WINDOW:])],
    )
    return now is not None and len(before) >= FEWEST and now < expected(before, figures)[1]


def _gone(key: Key, figure: Field, before: list[tuple[Run, float]]) -> Finding:
    """A figure that was measured on this machine, and no longer is: a gate that cannot see."""
    run, value = before[-1]
    return Finding(GONE, Change(key, figure.name, value, None, run.name), run.number)


def growth_message(finding: Finding, threshold: float) -> str:
    """Say in a line what grew by how much, and how much was allowed: `threshold`, a fraction."""
    change = finding.change
    assert change.figure
    if change.after is None:
        return f"{title(change.figure)} was measured in {finding.against}, and is missing now"
    return (
        f"{title(change.figure)} grew from {format_figure(change.figure, change.before)} ({finding.against}) to "
        f"{format_figure(change.figure, change.after)}: {change.percent}, where {100 * threshold:.3g} % are allowed"
    )
