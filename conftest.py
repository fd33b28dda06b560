"""Wires the rooms together: options in, checkpoints and records for the tests, a table at the end."""

import os
import warnings
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from pytest_benchmark.logger import PytestBenchmarkWarning

from bench.cases.case import Case
from bench.cases.options import OPTIONS, Settings, add_options, settings
from bench.conformance import profiles
from bench.conformance.sweep import Cell
from bench.history.fingerprint import fingerprint, in_a_line
from bench.history.gate import Gate, timed
from bench.history.options import OPTIONS as HISTORY_OPTIONS
from bench.history.options import history_options
from bench.history.record import Record
from bench.report.alive import explanation
from bench.report.comparison import comparison_lines, comparison_markdown, comparison_title, quiet_line
from bench.report.conformance import conformance_lines
from bench.report.export import export
from bench.report.history import history_lines, history_markdown
from bench.report.progress import progress_bar, say, uncaptured
from bench.report.rows import Outcome, rows
from bench.report.table import markdown, terminal_lines
from bench.report.versus import versus_lines, versus_markdown
from bench.versus.session import OPTIONS as VERSUS_OPTIONS
from bench.versus.session import Versus
from model.checkpoints import Checkpoint, Specification, make_sparse
from model.layouts import LAYOUTS
from model.shelf import DiskTooSmall, MemoryTooSmall, Shelf

# Runs of pytest within tests.
pytest_plugins = ["pytester"]

Parameter = TypeVar("Parameter")

SETTINGS = pytest.StashKey[Settings]()
SHELF = pytest.StashKey[Shelf]()
OUTCOMES = pytest.StashKey[list[Outcome]]()
CELLS = pytest.StashKey[list[Cell]]()
GATE = pytest.StashKey[Gate]()
VERSUS = pytest.StashKey[Versus | None]()

# Of a page that wraps by itself.
JOB_PAGE_COLUMNS = 1000

# Before hypothesis looks for the profile that its own option names.
profiles.register()


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser.getgroup("weight loading"), (*OPTIONS, *HISTORY_OPTIONS, *VERSUS_OPTIONS))


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    try:
        config.stash[SETTINGS] = chosen = settings(config.option)
        history = history_options(config.option)
        versus = Versus(config, history, chosen.checkpoints) if config.option.versus else None
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[GATE] = gate = Gate(config, history, chosen.wants)
    config.stash[VERSUS] = versus
    config.stash[SHELF] = Shelf(chosen.checkpoints, partial(say, config), progress_bar)
    config.stash[OUTCOMES] = list[Outcome]()
    config.stash[CELLS] = list[Cell]()
    if config.option.benchmark_storage == "file://./.benchmarks":  # pytest-benchmark's own default
        config.option.benchmark_storage = f"file://{config.rootpath / 'results'}"
    for plugin in filter(None, (gate, versus)):
        config.pluginmanager.register(plugin)
    # A run of self-tests alone has nothing to save: no need to say so. Said when pytest's own filters are gone.
    warnings.filterwarnings("ignore", "Not saving anything", PytestBenchmarkWarning)


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, None, None]:
    chosen, gate = session.config.stash[SETTINGS], session.config.stash[GATE]
    if chosen.export and gate.benchmarks:
        measured = [bench.as_dict(include_data=False) for bench in gate.benchmarks]
        try:
            export(measured, in_a_line(fingerprint({}, chosen.checkpoints)), chosen.export)
        except OSError as error:
            gate.complain(f"--export: {chosen.export.name}/ cannot be written to: {error.strerror}")
            if session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
    yield


def pytest_unconfigure(config: pytest.Config) -> None:
    if SHELF in config.stash:
        config.stash[SHELF].close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        chosen, marker = metafunc.config.stash[SETTINGS], metafunc.definition.get_closest_marker
        cases = chosen.limits() if marker("limit") else chosen.cases(real=marker("real_device") is not None)
        metafunc.parametrize("case", cases, ids=str)
    if "trial" in metafunc.fixturenames:
        metafunc.parametrize("trial", metafunc.config.stash[SETTINGS].trials(), ids=str)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Do everything with one checkpoint before the next is made: the disk may not hold both.

    Memory comes first: what its record says of the device is what a row of the table is about.
    """
    sizes, nothing_real = config.stash[SETTINGS].sizes, config.stash[SETTINGS].real_device is None
    # Where there is nothing to measure, pytest makes one item of a test that it would skip.
    idle = [
        item
        for item in items
        if _wants(item, "case", Case) or (nothing_real and item.get_closest_marker("real_device"))
    ]
    items[:] = [item for item in items if item not in idle]
    config.hook.pytest_deselected(items=idle)

    def place(item: pytest.Item) -> tuple[int, int, bool]:
        case = _case(item)
        if case is None:
            return -1, 0, False
        return sizes.index(case.size), list(LAYOUTS).index(case.strategy.layout), "peak_memory" not in item.name

    items.sort(key=place)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Say that the disk is too small before anything is written to it."""
    cases = [case for item in session.items if (case := _case(item))]
    specifications = {case.rehearsal if case.planned else case.specification for case in cases}
    if specifications and not session.config.option.collectonly:
        try:
            session.config.stash[SETTINGS].checkpoints.mkdir(parents=True, exist_ok=True)
            session.config.stash[SHELF].require_space(specifications)
        except DiskTooSmall as error:
            raise pytest.UsageError(f"{error}, or count the peaks with --plan") from None
        except OSError as error:
            raise pytest.UsageError(f"checkpoints cannot be kept: {error}; name a folder with --checkpoints") from None


@pytest.fixture
def checkpoint(
    case: Case, pytestconfig: pytest.Config, planned_checkpoint: Callable[[Specification], Checkpoint]
) -> Checkpoint:
    """The checkpoint of a case, made if it is not there; the test is skipped where memory cannot hold the load."""
    if case.planned:
        return planned_checkpoint(case.specification)
    if shortage := case.shortage():
        pytest.skip(f"{shortage}; --plan counts the peaks of such a load")
    return _get(pytestconfig, case.specification)


@pytest.fixture(scope="session")
def planned_checkpoint() -> Iterator[Callable[[Specification], Checkpoint]]:
    """Makes checkpoints of which only the sizes are there; they last as long as the run."""
    with TemporaryDirectory(prefix="plan-") as folder:

        @cache
        def get(specification: Specification) -> Checkpoint:
            make_sparse(specification, Path(folder) / specification.name)
            return Checkpoint(specification, Path(folder) / specification.name)

        yield get


@pytest.fixture
def rehearsal(case: Case, pytestconfig: pytest.Config) -> Checkpoint:
    """A checkpoint like that of a case, but so small that loading it measures nothing."""
    return _get(pytestconfig, case.rehearsal)


def _get(config: pytest.Config, specification: Specification) -> Checkpoint:
    try:
        with uncaptured(config):
            return config.stash[SHELF].get(specification)
    except MemoryTooSmall as error:
        raise pytest.skip.Exception(str(error)) from None
    except (DiskTooSmall, OSError) as error:
        raise pytest.fail.Exception(f"{specification.name} cannot be made: {error}", pytrace=False) from None


@pytest.fixture
def cells(pytestconfig: pytest.Config) -> list[Cell]:
    """Where the cells of the conformance table are kept until the end of the run."""
    return pytestconfig.stash[CELLS]


@pytest.fixture
def explain(pytestconfig: pytest.Config) -> bool:
    """Whether every peak is to be explained, not only those that are not what they should be."""
    return pytestconfig.stash[SETTINGS].explain


@pytest.fixture
def record(case: Case, benchmark: BenchmarkFixture) -> Record:
    """The record of a benchmark, with all that is known beforehand: what the test adds goes into the JSON."""
    benchmark.params = {"strategy": case.row, "size": case.size, "device": case.device}
    benchmark.extra_info = case.blank_record()
    return benchmark.extra_info


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if isinstance(item, pytest.Function) and (case := _case(item)) and (report.when == "call" or not report.passed):
        verdict = "ok" if report.passed else str(call.excinfo and call.excinfo.value).partition("\n")[0]
        if report.skipped:
            verdict = f"skipped: {verdict}"
        benchmark: BenchmarkFixture | None = item.funcargs.get("benchmark")  # type: ignore[assignment]
        record = benchmark.extra_info if benchmark else {}
        item.config.stash[OUTCOMES].append(Outcome(case.row, case.size, verdict, dict(record)))
    return report


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    replaced = fingerprint(machine_info, config.stash[SETTINGS].checkpoints)
    machine_info.clear()
    machine_info.update(replaced)


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    output_json["conformance"] = [asdict(cell) for cell in config.stash[CELLS]]


@pytest.hookimpl(tryfirst=True)
def pytest_benchmark_group_stats(benchmarks: list[dict[str, Any]]) -> None:
    """Leave the loads whose memory was metered out of pytest-benchmark's table of times."""
    benchmarks[:] = [bench for bench in benchmarks if timed(bench)]


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None, None, None]:
    try:
        yield
    finally:
        for title, lines in _sections(config, config.get_terminal_writer().fullwidth):
            terminalreporter.section(title)
            for line in lines:
                terminalreporter.write_line(line)
        versus = config.stash[VERSUS]
        for line in (*config.stash[GATE].complaints, *(versus.complaints if versus else ())):
            terminalreporter.write_line(f"ERROR: {line}", red=True)
        job_page = os.environ.get("GITHUB_STEP_SUMMARY")
        if job_page and not config.option.benchmark_disable:
            with Path(job_page).open("a") as file:
                file.writelines(_job_page(config))


def _sections(config: pytest.Config, width: int) -> Iterator[tuple[str, list[str]]]:
    """Everything that a run has to say in a terminal of `width` columns, under its titles."""
    chosen, gate = config.stash[SETTINGS], config.stash[GATE]
    cells, outcomes = config.stash[CELLS], config.stash[OUTCOMES]
    if cells:
        yield "conformance", conformance_lines(cells, width, whole=chosen.conformance)
    if table := rows(outcomes):
        explained = [line for outcome in outcomes for line in explanation(outcome)] if chosen.explain else []
        yield f"weight loading: {chosen.title}", [*explained, *terminal_lines(table, width)]
    if gate.shown:
        yield comparison_title(gate.shown), comparison_lines(gate.shown, gate.recorded, width)
    elif gate.comparison and (line := quiet_line(gate.comparison)):
        yield "not compared", [line]
    if (versus := config.stash[VERSUS]) and versus.result:
        yield "versus", versus_lines(versus.result, width)
    if gate.history is not None:
        yield "history", history_lines(gate.history, gate.passed_over, width)


def _job_page(config: pytest.Config) -> Iterator[str]:
    """The same in Markdown."""
    gate, cells, outcomes = config.stash[GATE], config.stash[CELLS], config.stash[OUTCOMES]
    if table := rows(outcomes):
        yield markdown(table)
    if gate.shown:
        yield comparison_markdown(gate.shown, gate.recorded)
    if cells:
        yield from (f"{line}\n" for line in conformance_lines(cells, JOB_PAGE_COLUMNS, whole=True))
    if (versus := config.stash[VERSUS]) and versus.result:
        yield versus_markdown(versus.result)
    if gate.history is not None:
        yield history_markdown(gate.history, gate.passed_over)


def _case(item: pytest.Item) -> Case | None:
    return _parameter(item, "case", Case)


def _parameter(item: pytest.Item, name: str, kind: type[Parameter]) -> Parameter | None:
    callspec = getattr(item, "callspec", None)
    value = callspec.params.get(name) if callspec else None
    return value if isinstance(value, kind) else None


def _wants(item: pytest.Item, name: str, kind: type) -> bool:
    """Whether a test asks for a parameter of which there is none."""
    return name in getattr(item, "fixturenames", ()) and _parameter(item, name, kind) is None
