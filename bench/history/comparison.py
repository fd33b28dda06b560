"""A run held against those before it: what is worse, what is better, what is gone or new, what cannot be told."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.history.baselines import Baselines
from bench.history.comparison_request import ComparisonRequest
from bench.history.findings import BUSY, GONE, REGRESSIONS, SLOWER, Finding, Times, byte_changes, time_changes
from bench.history.runs import Change, Key, Run
from bench.record.record import BYTES, Record

_EXACT = tuple(figure.name for figure in BYTES if not figure.slack(planned=False))


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
            and all(other.value(name) == record.value(name) for name in ("size", "device", "layout", *_EXACT))
        ]
        if len(fitting) == 1:
            found[key] = fitting[0]
    return found


@dataclass
class Comparison:
    """A run held against those before it; it grows while the run goes on.

    `records` are those that are right, `grown` those that are worse in bytes, whatever else is wrong with them.
    `passed_over`: files that are no runs, and why. `elsewhere`: benchmarks that never ran on this machine with this
    set-up, and what differs.
    """

    past: Baselines
    accepted: bool
    passed_over: list[str]
    records: dict[Key, Record] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    grown: dict[Key, Record] = field(default_factory=dict)
    vanished: dict[Key, Run] = field(default_factory=dict)
    new: list[Key] = field(default_factory=list)
    renamed: dict[Key, Key] = field(default_factory=dict)
    elsewhere: dict[Key, list[str]] = field(default_factory=dict)
    # Recorded, to be measured in this run, and then skipped or failed.
    missed: list[Key] = field(default_factory=list)
    times: Times = field(default_factory=lambda: Times(0, [], {}))

    def regressions(self, key: Key, record: Record, threshold: float) -> list[Finding]:
        """Compare the bytes of a benchmark, add what changed, and return what grew by more than a fraction."""
        found = list(byte_changes(self.past, key, record, threshold))
        self.findings.extend(found)
        grown = [finding for finding in found if finding.verdict in REGRESSIONS]
        if grown:
            self.grown[key] = record
        return grown

    def conclude(self, records: dict[Key, Record], time_threshold: float | None) -> None:
        """Add what can be told only of the whole run: `records` are those that are right."""
        past = self.past
        self.records = records
        self.new = [key for key in records if not past.holds(key)]
        self.elsewhere = {key: differing for key in records if past.holds(key) and (differing := past.elsewhere(key))}
        gone = {key: run.records[key] for key, run in self.vanished.items()}
        self.renamed = renamed(gone, {key: records[key] for key in self.new})
        if time_threshold is not None:
            self.times = time_changes(past, records, time_threshold)
            self.findings.extend(self.times.findings)

    def add_missed(self, unmeasured: Collection[str], belongs: Callable[[Record], bool]) -> None:
        """Add the recorded benchmarks of this run that are among the `unmeasured` ones, by their full names."""
        recorded = {key: run.records[key] for key, run in self.past.recorded().items()}
        missed = {key.fullname: key for key, one in recorded.items() if key.fullname in unmeasured and belongs(one)}
        self.missed = list(missed.values())

    def complaints(self, request: ComparisonRequest, failed_checks: Sequence[str]) -> list[str]:
        """Return a line for each reason why the comparison fails the run, beside its tests.

        `failed_checks` are pytest-benchmark's own.
        """
        found = []
        if self.slower and not request.accept:
            found.append(f"{self.slower} times are longer than in their recent runs, or gone")
        if not request.accept:
            found.extend(failed_checks)
        if request.required and not self.whole:
            found.append("--require-comparison: not everything could be compared")
        return found

    @property
    def busy(self) -> list[Change]:
        """Times that are longer on a machine that had less time for them."""
        return [finding.change for finding in self.findings if finding.verdict == BUSY]

    @property
    def slower(self) -> int:
        """Number of times that are longer than they were, or gone."""
        return sum(
            finding.verdict in (SLOWER, GONE) and (finding.change.figure or "").endswith("_seconds")
            for finding in self.findings
        )

    @property
    def whole(self) -> bool:
        """True where everything was compared, but for what is new."""
        return not (self.elsewhere or self.busy or self.missed) and len(self.new) < len(self.records)

    @property
    def changes(self) -> list[Change]:
        """The figures and benchmarks that are worse than they were."""
        gone = [Change(key, None, None, None, run.name) for key, run in self.vanished.items()]
        return [finding.change for finding in self.findings if finding.verdict in REGRESSIONS] + gone

    def as_recorded(self) -> dict[str, Any]:
        """Return what the file of the run has of the comparison: see `results/README.md`."""
        return {
            "changes": [asdict(change) for change in self.changes],
            "busy": [asdict(change) for change in self.busy],
        }
