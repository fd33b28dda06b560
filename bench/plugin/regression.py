"""A pytest plugin that holds a run against history, fails it where it has to, and says as what it is recorded."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from pytest_benchmark.storage.file import FileStorage

from bench.history.baselines import Baselines
from bench.history.comparison import Comparison
from bench.history.findings import REGRESSIONS, Finding, byte_changes
from bench.history.runs import Key, Run, read_run
from bench.history.schema import FAILED, INTERRUPTED, PASSED, RUN_SCHEMA
from bench.history.storage import Storage, in_text, write_whole
from bench.plugin.history_options import HistoryOptions
from bench.plugin.vanished import Vanished, placeholders
from bench.record.field import format_figure, title
from bench.record.record import Record
from bench.record.record_file import Unreadable

OUTCOMES: dict[int, str] = {pytest.ExitCode.OK: PASSED, pytest.ExitCode.INTERRUPTED: INTERRUPTED}


class MemoryRegression(pytest.fail.Exception):  # type: ignore[name-defined, misc]  # pytest gives its class no other name
    """The load is right, and its peaks are within their bounds, but they grew: what was measured is good to keep."""

    # As pytest does with its own: a summary of 80 columns is to say what grew.
    __module__ = "builtins"


class RegressionPlugin:
    """`wants` says of a record whether such a benchmark was to be measured in this run."""

    def __init__(self, config: pytest.Config, options: HistoryOptions, wants: Callable[[Record], bool]) -> None:
        self._config, self._options, self._wants = config, options, wants
        self.comparison: Comparison | None = None
        self.storage: Storage | None = None
        # What was recorded before this run.
        self.runs: list[Run] = []
        # The same, where nothing is run but it is to be shown.
        self.history: list[Run] | None = None
        self._failed_tests: list[str] = []
        self._complaints: list[str] = []
        self._selected: set[str] = set()
        # pytest-benchmark would read the whole history for itself, and end in a traceback where a file is damaged.
        config.option.benchmark_compare = []

    @property
    def benchmarks(self) -> list[Any]:
        """What was measured and found to be right: pytest-benchmark's own entries."""
        return [
            bench
            for bench in self._session.benchmarks
            if bench and not bench.has_error and "schema" in bench.extra_info
        ]

    @property
    def shown(self) -> Comparison | None:
        """The comparison that someone asked for."""
        return self.comparison if self._options.compare else None

    @property
    def recorded(self) -> Path | None:
        """The file of this run, if it has one and later runs are held against it."""
        return self.storage.saved if self.storage and self.storage.outcome == PASSED else None

    @property
    def passed_over(self) -> list[str]:
        """Which files look like runs and are none, and why."""
        return self.storage.passed_over if self.storage else []

    @property
    def complaints(self) -> list[str]:
        """Why the run fails, or is not recorded, beside its tests."""
        unsaved = [self.storage.unsaved] if self.storage and self.storage.unsaved else []
        return [*self._complaints, *unsaved]

    def complain(self, reason: str) -> None:
        """Let the run fail, whatever its tests say."""
        self._complaints.append(reason)

    @property
    def _session(self) -> Any:
        return self._config._benchmarksession  # type: ignore[attr-defined]  # noqa: SLF001 - it has no other name

    def pytest_sessionstart(self) -> None:
        session = self._session
        if not isinstance(session.storage, FileStorage):
            session.compare = self._options.compare
            session.handle_loading()
            return
        session.storage = self.storage = Storage(session.storage)
        session.save_json = self._save_json
        if self._options.show:
            self.history = self.storage.runs()
        elif not session.disabled:
            self.runs = self.storage.runs()
            # Without --benchmark-compare too: what is worse is not to become what later runs are held against.
            self.comparison = Comparison(self._past(self.storage), self._options.accept, self.storage.passed_over)

    def _past(self, storage: Storage) -> Baselines:
        """The runs to compare with. Raises `UsageError` if one was named that is not there, or did not pass."""
        runs, name, machine = self.runs, self._options.compare, self._session.get_machine_info()
        passed = [run for run in runs if run.outcome == PASSED]
        if name is True or not name:
            return Baselines(passed, machine)
        try:
            named = tuple(read_run(file) for file in storage.files(str(name)))
        except Unreadable as error:
            raise pytest.UsageError(f"--benchmark-compare: {name} {error}") from None
        if not named or any(run.outcome != PASSED for run in named):
            asked = Path(str(name)).name.removesuffix(".json")
            unfit = [
                run.outcome
                for run in runs
                if run.outcome != PASSED and (asked == run.number or f"{run.name}_".startswith(f"{asked}_"))
            ]
            why = f"is a run that {unfit[0]}, and none is compared with it" if unfit else "is not recorded"
            last = f"the last that passed is {passed[-1].number}" if passed else "no run is"
            raise pytest.UsageError(f"--benchmark-compare: {name} {why}; {last}")
        last_named = max(named, key=lambda run: run.moment)
        earlier = [run for run in passed if run.moment <= last_named.moment and run.name not in {n.name for n in named}]
        return Baselines((*earlier, *named), machine, named)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> bool | None:
        """Collect nothing where nothing is to be run."""
        return None if self.history is None else True

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Put a failing test where a recorded benchmark is gone, before any is deselected."""
        if self.shown is None or self._session.skip:
            return
        there = {item.nodeid for item in items}
        for key, run in self.shown.baselines.recorded().items():
            if key.fullname not in there and self._wants(run.records[key]):
                items.extend(placeholders(session, items, key.fullname, partial(self._miss, key, run)))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._selected = {item.nodeid for item in session.items if not isinstance(item, Vanished)}

    def _miss(self, key: Key, run: Run) -> None:
        assert self.comparison
        self.comparison.vanished[key] = run
        if not self._options.accept:
            pytest.fail(f"vanished: {run.number} has it, and it is no longer there; --accept lets it go", pytrace=False)

    @pytest.fixture
    def growth(self, benchmark: BenchmarkFixture) -> Callable[[Record], dict[str, str]]:
        """Holds a record against history: every figure that fails it for having grown, and why, in a line."""

        def find(record: Record) -> dict[str, str]:
            threshold, comparison = self._options.memory_threshold, self.comparison
            if comparison is None or threshold is None:
                return {}
            key = Key.of(benchmark.fullname, record)
            found = list(byte_changes(comparison.baselines, key, record, threshold))
            comparison.findings.extend(found)
            grown = [finding for finding in found if finding.verdict in REGRESSIONS]
            if grown:
                comparison.grown[key] = record
            fails = self._options.compare and not self._options.accept
            return {str(one.change.figure): _told(one, threshold) for one in grown if fails}

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
        """Judge before pytest-benchmark saves, and fail where it could not."""
        if self.history is not None and session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = pytest.ExitCode.OK
        # What was interrupted while it was measured has no figures, and pytest-benchmark would end in a traceback.
        self._session.benchmarks[:] = [bench for bench in self._session.benchmarks if bench.stats.data]
        if self.comparison:
            self._judge(self.comparison)
        elif self._options.required and self.history is None:
            self.complain("--require-comparison: benchmarks are disabled, so nothing was compared")
        if self._complaints and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self.storage:
            self.storage.outcome = OUTCOMES.get(int(session.exitstatus), FAILED)
        yield
        if self.complaints and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _judge(self, comparison: Comparison) -> None:
        records = {
            Key.of(bench.fullname, record): record
            for bench in self.benchmarks
            for record in [Record.read(bench.extra_info)]
        }
        comparison.conclude(records, self._options.time_threshold)
        if not self._options.compare:
            return
        unmeasured = self._selected - {key.fullname for key in records}
        recorded = {key: run.records[key] for key, run in comparison.baselines.recorded().items()}
        missed = {key.fullname: key for key, one in recorded.items() if key.fullname in unmeasured and self._wants(one)}
        comparison.missed = list(missed.values())
        if comparison.slower and not self._options.accept:
            self.complain(f"{comparison.slower} times are longer than in their recent runs, or gone")
        for complaint in self._compare_fail(comparison.baselines, records):
            self.complain(complaint)
        if self._options.required and not comparison.whole:
            self.complain("--require-comparison: not everything could be compared")

    def _compare_fail(self, baselines: Baselines, records: Mapping[Key, Record]) -> list[str]:
        """Have pytest-benchmark show the last run beside this one, and say what `--benchmark-compare-fail` says of it.

        What it would do by itself is to save first, then to end with a traceback.
        """
        session, last = self._session, baselines.latest_here(list(records))
        if last is None or self.storage is None:
            session.compare_fail = None
            return []
        self.storage.baselines = tuple(run.file for run in baselines.named or (last,))
        session.compare = True
        if reporter := self._config.pluginmanager.getplugin("terminalreporter"):
            reporter.ensure_newline()
        session.handle_loading()
        checks, session.compare_fail = session.compare_fail or [], None
        return [
            f"{bench.name}: {failed}"
            for bench in session.benchmarks
            for compared in session.compared_mapping.values()
            for check in checks
            if bench and bench.fullname in compared and not self._options.accept
            if (failed := check.fails(bench, compared[bench.fullname]["stats"]))
        ]

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
            if timed(bench)
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
        benchmarks[:] = [bench for bench in benchmarks if timed(bench)]

    def pytest_benchmark_update_json(self, output_json: dict[str, Any]) -> None:
        changes = self.comparison.changes if self.comparison else []
        output_json["history"] = {
            "schema": RUN_SCHEMA,
            "outcome": self.storage.outcome if self.storage else None,
            "failed": self._failed_tests,
            "complaints": self.complaints,
            "changes": [asdict(change) for change in changes],
            "busy": [asdict(change) for change in (self.comparison.busy if self.comparison else ())],
            "accepted": self._options.accept,
        }

    def _save_json(self, output_json: dict[str, Any]) -> None:
        """What `--benchmark-json` asks for, whole."""
        session = self._session
        try:
            write_whole(Path(session.json), in_text(output_json))
        except OSError as error:
            self.complain(f"--benchmark-json: {session.json} cannot be written: {error.strerror}")
        else:
            session.logger.info(f"Wrote benchmark data in: {session.json}", purple=True)


def timed(bench: dict[str, Any]) -> bool:
    """Whether the time of a benchmark is one to look at, and not that of a load whose memory was metered."""
    record = bench["extra_info"]
    return "schema" not in record or record.get("bytes_per_second") is not None


def _told(finding: Finding, threshold: float) -> str:
    change = finding.change
    assert change.figure
    if change.after is None:
        return f"{title(change.figure)} was measured in {finding.against}, and is not any more"
    return (
        f"{title(change.figure)} grew from {format_figure(change.figure, change.before)} ({finding.against}) to "
        f"{format_figure(change.figure, change.after)}: {change.percent}, where {100 * threshold:.3g} % are allowed"
    )
