"""The measurements of a run: what each one is called, and what is missing of them after an interrupt."""

from collections.abc import Sequence
from typing import NamedTuple

import pytest

from bench.plugin.selection import case_of, conformance_case_of
from bench.report.rows import listed

# What a test measures, by the end of its name; the first one that fits.
STEPS = (
    ("_equivalence", "weights and outputs"),
    ("_peak_memory", "peak memory"),
    ("_limit", "this machine's fastest load"),
    ("_load_time", "load time"),
    ("_short_memory", "load in half the memory"),
    ("_smallest_budget", "least memory"),
    ("_budget", "load in the given memory"),
)


class Step(NamedTuple):
    """One measurement: what is measured, and of which row of the table, at which size."""

    what: str
    name: str
    size: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.what}{f' ({self.size})' if self.size else ''}"


def step_of(item: pytest.Item) -> Step | None:
    """Return what a test measures; None for a test that measures nothing."""
    case, conformance_case = case_of(item), conformance_case_of(item)
    name, size = (case.row_key.name, case.size) if case else (str(conformance_case or ""), "")
    test = getattr(item, "originalname", item.name)
    return next((Step(what, name, size) for end, what in STEPS if name and test.endswith(end)), None)


class RunSteps:
    """A pytest plugin that knows which measurements of a run are done."""

    def __init__(self) -> None:
        self.was_interrupted = False
        self._steps: dict[str, Step] = {}
        self._done: set[str] = set()

    def pytest_report_collectionfinish(self, config: pytest.Config, items: Sequence[pytest.Item]) -> str | None:
        """Return a line with what is going to be measured, and how often."""
        option = config.option
        if option.benchmark_disable or option.benchmark_skip or option.benchmark_quiet or option.collectonly:
            return None
        found = [step for item in items if case_of(item) and (step := step_of(item))]
        counts = {step.what: sum(one.what == step.what for one in found) for step in found}
        return f"measuring {', '.join(f'{what} ({count})' for what, count in counts.items())}" if counts else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            is_shown = case_of(item) and not item.get_closest_marker("not_in_table")
            if is_shown and (step := step_of(item)):
                self._steps[item.nodeid] = step

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            self._done.add(report.nodeid)

    def pytest_keyboard_interrupt(self) -> None:
        self.was_interrupted = True

    def interruption(self, *, is_recorded: bool) -> str:
        """Return a line about a run that was interrupted: what it has, and what is missing; "" for all others."""
        missing = [step for name, step in self._steps.items() if name not in self._done]
        if not self.was_interrupted or not self._steps:
            return ""
        record = "recorded as interrupted, and no run is compared with it" if is_recorded else "not recorded"
        parts = [self._missing(what, missing) for what in dict.fromkeys(step.what for step in missing)]
        done = f"{len(self._steps) - len(missing)} of {len(self._steps)} measurements are done"
        lacks = f"; missing: {'; '.join(parts)}" if parts else ""
        return f"Interrupted: {done}{lacks}. The run is {record}; the same command measures all again."

    def _missing(self, what: str, missing: Sequence[Step]) -> str:
        several = len({step.size for step in self._steps.values()}) > 1
        names = [f"{step.name}-{step.size}" if several else step.name for step in missing if step.what == what]
        count = sum(step.what == what for step in self._steps.values())
        return f"{what} of {listed(names) if len(names) < count else f'all {count}'}"
