"""Comparison of a run with earlier ones: worse and better figures, lost and new benchmarks."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.history.baselines import Baselines
from bench.history.comparison_request import ComparisonRequest
from bench.history.findings import (
    BUSY,
    GONE,
    REGRESSIONS,
    SLOWER,
    Finding,
    TimeComparison,
    byte_changes,
    time_changes,
)
from bench.history.fingerprint import MachineDifference
from bench.history.runs import Change, Key, Run
from bench.record.record import BYTES, SECONDS, Record

_TIMES = tuple(figure.name for figure in SECONDS)
_EXACT = tuple(figure.name for figure in BYTES if not figure.slack(planned=False))


def renamed(gone: Mapping[Key, Record], new: Mapping[Key, Record]) -> dict[Key, Key]:
    """Map lost benchmarks to new ones that take the same bytes: these seem to be renamed.

    A benchmark that fits several new ones is left out.
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
    """Comparison of a run with earlier ones; the run adds to it.

    `records` are those that are right, `grown` those that are worse in bytes, whatever else is wrong with them.
    `passed_over`: files that are no runs, and why. `elsewhere`: benchmarks that never ran on this machine with this
    set-up, and what differs.
    """

    baselines: Baselines
    accepted: bool
    passed_over: list[str]
    records: dict[Key, Record] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    grown: dict[Key, Record] = field(default_factory=dict)
    vanished: dict[Key, Run] = field(default_factory=dict)
    new: list[Key] = field(default_factory=list)
    renamed: dict[Key, Key] = field(default_factory=dict)
    elsewhere: dict[Key, list[MachineDifference]] = field(default_factory=dict)
    # Recorded, to be measured in this run, and then skipped or failed.
    missed: list[Key] = field(default_factory=list)
    times: TimeComparison = field(default_factory=lambda: TimeComparison(0, [], {}))

    def regressions(self, key: Key, record: Record, threshold: float) -> list[Finding]:
        """Compare the bytes of a benchmark, add what changed, and return what grew by more than a fraction."""
        found = list(byte_changes(self.baselines, key, record, threshold))
        self.findings.extend(found)
        grown = [finding for finding in found if finding.verdict in REGRESSIONS]
        if grown:
            self.grown[key] = record
        return grown

    def conclude(self, records: dict[Key, Record], time_threshold: float | None) -> None:
        """Add what can be told only of the whole run: `records` are those that are right."""
        baselines = self.baselines
        self.records = records
        self.new = [key for key in records if not baselines.holds(key)]
        self.elsewhere = {key: what for key in records if baselines.holds(key) and (what := baselines.elsewhere(key))}
        gone = {key: run.records[key] for key, run in self.vanished.items()}
        self.renamed = renamed(gone, {key: records[key] for key in self.new})
        if time_threshold is not None:
            self.times = time_changes(baselines, records, time_threshold)
            self.findings.extend(self.times.findings)

    def add_missed(self, unmeasured: Collection[str], belongs: Callable[[Record], bool]) -> None:
        """Add the recorded benchmarks of this run that are among the `unmeasured` ones, by their full names."""
        recorded = {key: run.records[key] for key, run in self.baselines.recorded().items()}
        missed = {key.fullname: key for key, one in recorded.items() if key.fullname in unmeasured and belongs(one)}
        self.missed = list(missed.values())

    def complaints(self, request: ComparisonRequest, failed_checks: Sequence[str]) -> list[str]:
        """Return a line for each reason why the comparison fails the run, beside its tests.

        `failed_checks` are pytest-benchmark's own.
        """
        found = []
        if self.slower and not request.accept:
            found.append(f"{self.slower} times became longer than in their recent runs, or are missing")
        if not request.accept:
            found.extend(failed_checks)
        if request.required and not self.whole:
            found.append("--require-comparison: some benchmarks could not be compared")
        return found

    @property
    def busy(self) -> list[Change]:
        """Times that became longer while the machine's own limit was lower, too."""
        return [finding.change for finding in self.findings if finding.verdict == BUSY]

    @property
    def slower(self) -> int:
        """The number of times that are longer than before, or gone."""
        return sum(finding.verdict in (SLOWER, GONE) and finding.change.figure in _TIMES for finding in self.findings)

    @property
    def whole(self) -> bool:
        """True if everything was compared but new benchmarks."""
        return not (self.elsewhere or self.busy or self.missed) and len(self.new) < len(self.records)

    @property
    def changes(self) -> list[Change]:
        """All changes for the worse."""
        gone = [Change(key, None, None, None, run.name) for key, run in self.vanished.items()]
        return [finding.change for finding in self.findings if finding.verdict in REGRESSIONS] + gone

    def as_recorded(self) -> dict[str, Any]:
        """Return what the file of the run has of the comparison: see `results/README.md`."""
        return {
            "changes": [asdict(change) for change in self.changes],
            "busy": [asdict(change) for change in self.busy],
        }
