"""A pytest plugin that compares a run with earlier runs, fails it for regressions, and records its outcome."""

from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.history.baselines import Baselines, named_baselines, passed_baselines
from bench.history.comparison import Comparison
from bench.history.comparison_request import ComparisonRequest
from bench.history.findings import growth_message
from bench.history.runs import Key, Run
from bench.history.schema import FAILED, INTERRUPTED, PASSED, RUN_SCHEMA
from bench.plugin.benchmark_session import BenchmarkSession, is_timed
from bench.plugin.options import Options
from bench.plugin.storage import Storage
from bench.plugin.vanished import Vanished, placeholders
from bench.record.record import Record

OUTCOMES: dict[int, str] = {pytest.ExitCode.OK: PASSED, pytest.ExitCode.INTERRUPTED: INTERRUPTED}


class MemoryRegression(pytest.fail.Exception):  # type: ignore[name-defined, misc]  # pytest gives its class no other name
    """The load is right, and its peaks are within their bounds, but they grew: its figures are kept."""

    # As pytest does with its own: a summary of 80 columns shows `Grown: `, and what grew.
    __module__, __qualname__ = "builtins", "Grown"


def comparison_request(options: Options, pytests: Any) -> ComparisonRequest:
    """Return the comparison that the suite's options and pytest-benchmark's ask for.

    `pytests` is pytest's namespace. Raises `ValueError` with one line: what is wrong, and what would be right.
    """
    if pytests.benchmark_compare == "":
        raise ValueError("--benchmark-compare=: no run is named; name one, or leave out the =")
    return ComparisonRequest(
        compare=pytests.benchmark_compare or options.require_comparison or options.accept_regressions or False,
        memory_threshold=options.memory_compare_fail,
        time_threshold=options.time_compare_fail,
        required=options.require_comparison,
        accept=options.accept_regressions,
        show=options.history,
    )


class RegressionPlugin:
    """`belongs` returns whether a recorded benchmark is one of this run."""

    def __init__(self, config: pytest.Config, request: ComparisonRequest, belongs: Callable[[Record], bool]) -> None:
        self._request, self._belongs = request, belongs
        self._session = BenchmarkSession(config)
        self.comparison: Comparison | None = None
        self.storage: Storage | None = None
        # What was recorded before this run.
        self.runs: list[Run] = []
        # The same, where nothing is run but it is to be shown.
        self.history: list[Run] | None = None
        self._failed_tests: list[str] = []
        self._complaints: list[str] = []
        self._selected: set[str] = set()

    @property
    def benchmarks(self) -> list[Any]:
        """The benchmarks that are right: pytest-benchmark's own entries."""
        return self._session.right_benchmarks

    @property
    def requested_comparison(self) -> Comparison | None:
        """The comparison, if the command line asks for one."""
        return self.comparison if self._request.compare else None

    @property
    def recorded(self) -> Path | None:
        """The file of this run, if it has one and later runs are held against it."""
        return self.storage.saved if self.storage and self.storage.outcome == PASSED else None

    @property
    def passed_over(self) -> list[str]:
        """A line for each file that looks like a run and is none."""
        return self.storage.passed_over if self.storage else []

    @property
    def complaints(self) -> list[str]:
        """The reasons why the run fails, or is not recorded, beside its tests."""
        unsaved = [self.storage.unsaved] if self.storage and self.storage.unsaved else []
        return [*self._complaints, *unsaved]

    def complain(self, reason: str) -> None:
        """Let the run fail, whatever its tests say."""
        self._complaints.append(reason)

    def pytest_sessionstart(self) -> None:
        self.storage = self._session.open_storage()
        if self.storage is None:
            self._session.compare_elsewhere(self._request.compare)
            return
        self._session.write_json_whole(self.complain)
        if self._request.show:
            self.history = self.storage.runs()
        elif not self._session.is_disabled:
            self.runs = self.storage.runs()
            # Without --benchmark-compare too: what is worse must not become what later runs are held against.
            self.comparison = Comparison(self._past(self.storage), self._request.accept, self.storage.passed_over)

    def _past(self, storage: Storage) -> Baselines:
        name, machine = self._request.compare, self._session.machine
        if not isinstance(name, str):
            return passed_baselines(self.runs, machine)
        try:
            return named_baselines(name, storage.files(name), self.runs, machine)
        except ValueError as error:
            raise pytest.UsageError(f"--benchmark-compare: {error}") from None

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> bool | None:
        """Collect nothing where nothing is to be run."""
        return None if self.history is None else True

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Put a failing test where a recorded benchmark is gone, before any is deselected."""
        if self.requested_comparison is None or self._session.is_skipped:
            return
        there = {item.nodeid for item in items}
        for key, run in self.requested_comparison.baselines.recorded().items():
            if key.fullname not in there and self._belongs(run.records[key]):
                items.extend(placeholders(session, items, key.fullname, partial(self._fail_for_vanished, key, run)))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._selected = {item.nodeid for item in session.items if not isinstance(item, Vanished)}

    def _fail_for_vanished(self, key: Key, run: Run) -> None:
        assert self.comparison
        self.comparison.vanished[key] = run
        if not self._request.accept:
            pytest.fail(
                f"vanished: run {run.number} has this benchmark, and it is gone now; accept that with "
                f"--accept-regressions",
                pytrace=False,
            )

    @pytest.fixture
    def find_regressions(self, benchmark: BenchmarkFixture) -> Callable[[Record], dict[str, str]]:
        """Holds a record against history: returns a line for each figure that grew and fails the test."""

        def find(record: Record) -> dict[str, str]:
            threshold, request = self._request.memory_threshold, self._request
            if self.comparison is None or threshold is None:
                return {}
            grown = self.comparison.regressions(Key.of(benchmark.fullname, record), record, threshold)
            fails = request.compare and not request.accept
            return {str(one.change.figure): growth_message(one, threshold) for one in grown if fails}

        return find

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Have pytest-benchmark leave out the figures of a test that failed; those that only grew are right."""
        report = yield
        benchmark = getattr(item, "funcargs", {}).get("benchmark")
        if benchmark and report.failed:
            benchmark.has_error = not (call.excinfo and isinstance(call.excinfo.value, MemoryRegression))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed_tests.append(report.nodeid)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, None, None]:
        """Compare before pytest-benchmark saves, and fail where it could not save."""
        if self.history is not None and session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = pytest.ExitCode.OK
        self._session.drop_unfinished()
        if self.comparison:
            self._conclude(self.comparison)
        elif self._request.required and self.history is None:
            self.complain(
                "--require-comparison: benchmarks are disabled, so nothing was compared; leave out --benchmark-disable"
            )
        if self._complaints and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self.storage:
            self.storage.outcome = OUTCOMES.get(int(session.exitstatus), FAILED)
        yield
        if self.complaints and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _conclude(self, comparison: Comparison) -> None:
        records = {
            Key.of(bench.fullname, record): record
            for bench in self.benchmarks
            for record in [Record.read(bench.extra_info)]
        }
        comparison.conclude(records, self._request.time_threshold)
        if not self._request.compare:
            return
        comparison.add_missed(self._selected - {key.fullname for key in records}, self._belongs)
        failed_checks = self._session.failed_checks(comparison.baselines, list(records), self.storage)
        self._complaints += comparison.complaints(self._request, failed_checks)

    @pytest.hookimpl(tryfirst=True)
    def pytest_benchmark_compare_machine_info(
        self, machine_info: dict[str, Any], compared_benchmark: dict[str, Any]
    ) -> None:
        """Leave to pytest-benchmark's table what it can compare: times of the same benchmarks, on this machine."""
        assert self.comparison
        comparable = self.comparison.records.keys() - self.comparison.elsewhere.keys()
        compared_benchmark["benchmarks"] = [
            bench
            for bench in compared_benchmark["benchmarks"]
            if is_timed(bench)
            and (
                "schema" not in (record := bench["extra_info"])
                or Key.of(bench["fullname"], Record.read(record)) in comparable
            )
        ]
        compared_benchmark["machine_info"] = machine_info

    @pytest.hookimpl(tryfirst=True)
    def pytest_benchmark_group_stats(self, benchmarks: list[dict[str, Any]]) -> None:
        """Leave the loads whose memory was metered out of pytest-benchmark's table of times.

        Not in conftest.py: `pytest-benchmark compare` takes hooks of that name there for whole replacements.
        """
        benchmarks[:] = [bench for bench in benchmarks if is_timed(bench)]

    def pytest_benchmark_update_json(self, output_json: dict[str, Any]) -> None:
        compared = self.comparison.as_recorded() if self.comparison else {"changes": [], "busy": []}
        output_json["history"] = {
            "schema": RUN_SCHEMA,
            "outcome": self.storage.outcome if self.storage else None,
            "failed": self._failed_tests,
            "complaints": self.complaints,
            **compared,
            "accepted": self._request.accept,
        }
