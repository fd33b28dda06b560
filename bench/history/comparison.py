"""A run held against those before it: what grew, what shrank, what is slower, and what cannot be told."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median

from bench.history.figures import BYTES, SECONDS
from bench.history.past import Past
from bench.history.record import Record
from bench.history.runs import Change, Key, Run
from bench.history.spread import FEWEST, WINDOW, expected
from bench.history.steps import steps

GREW, SLOWER, SHRANK, FASTER = "GREW", "SLOWER", "shrank", "faster"
REGRESSIONS = (GREW, SLOWER)

_EXACT = tuple(figure.name for figure in BYTES if not figure.slack_bytes)


@dataclass(frozen=True)
class Finding:
    """A figure that changed, which way, and what it was held against, in words."""

    verdict: str
    change: Change
    against: str


def byte_changes(past: Past, key: Key, record: Record, threshold: float) -> Iterator[Finding]:
    """Every figure in bytes that grew or shrank by more than `threshold`, a fraction.

    What is exact is held against the lowest that was recorded since someone accepted a growth: neither a run without
    comparison nor one little step a night moves that. What is looked at from outside is held against the median.
    """
    for figure in BYTES:
        now, before = record.get(figure.name), past.values(key, figure)
        if now is None or not before:
            continue
        # Where nothing was real, tensors were counted, and nothing is left to chance.
        slack = 0 if key.planned else figure.slack_bytes
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
class Times:
    """What became of the times of a run: how many figures were `judged`, and what was found.

    `waiting`: benchmarks of which there are so many runs, too few to tell a spread.
    """

    judged: int
    findings: list[Finding]
    waiting: dict[Key, int]


def time_changes(past: Past, records: Mapping[Key, Record], threshold: float) -> Times:
    """Every figure in seconds that is beyond what its window lets expect, and changed by more than `threshold`.

    The window are the last runs on this machine with this set-up, from where their level last moved; see
    `spread.expected` for the statistic.
    """
    windows, waiting, findings = [], {}, []
    for key, record in records.items():
        for figure in SECONDS:
            now, before = record.get(figure.name), _same_level(past.values(key, figure)[-WINDOW:])
            if now and len(before) >= FEWEST:
                windows.append((key, figure, now, before))
            elif now and before:
                waiting[key] = len(before)
    for key, figure, now, before in windows:
        then, lowest, highest = expected([value for _, value in before], len(windows))
        if now > max(highest, then * (1 + threshold)) or now < min(lowest, then / (1 + threshold)):
            change = Change(key, figure.name, then, now, before[-1][0].name)
            against = f"{len(before)} runs: {lowest:.3g} to {highest:.3g}"
            findings.append(Finding(SLOWER if now > then else FASTER, change, against))
    return Times(len(windows), findings, waiting)


def _same_level(window: list[tuple[Run, float]]) -> list[tuple[Run, float]]:
    """The runs since the level last moved, if they tell a spread: a gain is not to hide that it is lost again."""
    begins = [begin for begin in steps([value for _, value in window]) if len(window) - begin >= FEWEST]
    return window[begins[-1] :] if begins else window


def renamed(gone: Mapping[Key, Record], new: Mapping[Key, Record]) -> dict[Key, Key]:
    """Which new benchmark every benchmark that is gone seems to be: the one that takes the same bytes.

    Nothing is said where several would fit.
    """
    found = {}
    for key, record in gone.items():
        fitting = [
            one
            for one, other in new.items()
            if (key.test, *key[1:]) == (one.test, *one[1:])
            and all(other.get(name) == record.get(name) for name in ("size", "device", "layout", *_EXACT))
        ]
        if len(fitting) == 1:
            found[key] = fitting[0]
    return found


@dataclass
class Comparison:
    """What is known of a run that is held against others, while it grows.

    `passed_over`: files that are no runs, and why. `apart`: benchmarks that never ran on this machine with this
    set-up, and what differs.
    """

    past: Past
    accepted: bool
    passed_over: list[str]
    records: dict[Key, Record] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    vanished: dict[Key, Run] = field(default_factory=dict)
    new: list[Key] = field(default_factory=list)
    renamed: dict[Key, Key] = field(default_factory=dict)
    apart: dict[Key, list[str]] = field(default_factory=dict)
    times: Times = field(default_factory=lambda: Times(0, [], {}))

    def conclude(self, records: dict[Key, Record], time_threshold: float | None) -> None:
        """Add what can be told only of the whole run: `records` are those that are right."""
        past = self.past
        self.records = records
        self.new = [key for key in records if not past.holds(key)]
        self.apart = {key: apart for key in records if past.holds(key) and (apart := past.elsewhere(key))}
        gone = {key: run.records[key] for key, run in self.vanished.items()}
        self.renamed = renamed(gone, {key: records[key] for key in self.new})
        if time_threshold is not None:
            self.times = time_changes(past, records, time_threshold)
            self.findings.extend(self.times.findings)

    @property
    def slower(self) -> int:
        """How many figures take longer than they did."""
        return sum(finding.verdict == SLOWER for finding in self.findings)

    @property
    def whole(self) -> bool:
        """Whether nothing but what is new was left without a comparison."""
        return not self.apart and len(self.new) < len(self.records)

    @property
    def changes(self) -> list[Change]:
        """Everything that is worse than it was."""
        gone = [Change(key, None, None, None, run.name) for key, run in self.vanished.items()]
        return [finding.change for finding in self.findings if finding.verdict in REGRESSIONS] + gone
