import sys
from copy import copy
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.conformance.judge import CellStatus as Judged
from bench.conformance.sweep import Cell
from bench.measure.case import Case
from bench.plugin import progress
from bench.plugin.annotations import FailedTest
from bench.plugin.reporter import Reporter
from bench.plugin.test_options import chosen
from bench.record.record import Record
from bench.record.row_key import RowKey
from bench.report.comparison_section import Remark, RemarkKind
from bench.report.rows import CaseResult, Problem, Status
from bench.report.test_versus_section import RESULT
from bench.selftest.recorded_run import Runs

FAILED = CaseResult(RowKey("streamed", "small"), problem=Problem(Status.FAILED, "took too much"))
FAILURE = FailedTest("bench/test_x.py", 37, "test_x[streamed-small-sim]", "took too much")

ANNOTATIONS = [
    "::error::nothing was compared",
    "::error file=bench/test_x.py,line=37,title=test_x[streamed-small-sim]::took too much",
]


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def reporter() -> Reporter:
    """The reporter of a run in which a benchmark failed, and one thing more."""
    regression: Any = SimpleNamespace(
        comparison=None,
        requested_comparison=None,
        history=None,
        recorded=None,
        runs=[],
        passed_over=[],
        complaints=["nothing was compared"],
    )
    reporter = Reporter(Path(), chosen(device="cpu"), regression, None)
    reporter._results.append(FAILED)
    reporter._failures.append(FAILURE)
    return reporter


@pytest.fixture
def summary(
    reporter: Reporter, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> "Summary":
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "page.md"))
    monkeypatch.setattr(pytestconfig.option, "benchmark_disable", False)
    return Summary(reporter, pytestconfig, monkeypatch)


class Summary:
    """Text that is written at the end of a run."""

    def __init__(self, reporter: Reporter, config: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
        self._reporter, self._config, self._monkeypatch = reporter, config, monkeypatch

    def lines(self, *, quiet: bool = False, actions: str | None = None) -> list[str]:
        self._monkeypatch.setattr(self._config.option, "benchmark_quiet", quiet)
        if actions:
            self._monkeypatch.setenv("GITHUB_ACTIONS", actions)
        output = StringIO()
        hook = self._reporter.pytest_terminal_summary(pytest.TerminalReporter(self._config, output), self._config)
        next(hook)
        next(hook, None)
        return output.getvalue().splitlines()


@pytest.mark.parametrize("memory", [None, "80 GiB"])
def test_a_stand_in_for_a_gpu_is_named_first_and_where_versions_are_compared(
    reporter: Reporter, summary: Summary, tmp_path: Path, memory: str | None
) -> None:
    reporter._chosen = replace(chosen(device="cpu"), device="cuda:0", stand_in=memory)
    said = [f"cuda:0: a stand-in for a GPU ({memory}); times are not measured"] if memory else []
    assert reporter.pytest_report_header() == said
    reporter._versus = SimpleNamespace(result=RESULT, complaints=[])  # type: ignore[assignment]
    where = " on a stand-in for a GPU (80 GiB)" if memory else ""
    assert any(f"= versus{where} =" in line for line in summary.lines())
    assert f"### Versus{where}\n" in (tmp_path / "page.md").read_text()


def test_sections_come_before_complaints(summary: Summary) -> None:
    title, *lines = summary.lines()
    assert " weight loading: float32 to cpu, page cache warm " in title
    assert lines[-3:] == [
        "streamed-small: took too much",
        "To look into what failed, repeat with: -k streamed --explain",
        "ERROR: nothing was compared",
    ]


def test_quiet_leaves_the_complaints_and_the_page_of_a_job(summary: Summary, tmp_path: Path) -> None:
    assert summary.lines(quiet=True) == ["ERROR: nothing was compared"]
    assert "took too much" in (tmp_path / "page.md").read_text()


@pytest.mark.parametrize("quiet", [True, False])
def test_github_gets_annotations(summary: Summary, quiet: bool) -> None:
    assert summary.lines(quiet=quiet, actions="true")[-2:] == ANNOTATIONS


@pytest.mark.parametrize("actions", [None, "false"])
def test_nobody_else_gets_annotations(summary: Summary, actions: str | None) -> None:
    assert not [line for line in summary.lines(actions=actions) if line.startswith("::")]


def test_what_cannot_be_compared_is_a_warning(
    reporter: Reporter, summary: Summary, monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter._regression.comparison = reporter._regression.requested_comparison = SimpleNamespace()  # type: ignore[misc, assignment]
    found = [Remark(RemarkKind.NEW, "test_x[z]"), Remark(RemarkKind.NOT_COMPARED, "test_x[w]")]
    monkeypatch.setattr("bench.report.sections.remarks", lambda *_: found)
    monkeypatch.setattr("bench.report.sections.comparison_lines", lambda *_: [])
    monkeypatch.setattr("bench.report.sections.comparison_title", lambda _: "compared")
    monkeypatch.setattr("bench.report.sections.comparison_markdown", lambda *_: "")
    lines = [line for line in summary.lines(actions="true") if line.startswith("::")]
    assert lines == [*ANNOTATIONS, "::warning::NOT COMPARED: test_x[w]"]


@pytest.mark.parametrize(("error", "why"), [(ValueError("one\ntwo"), "one"), (AssertionError(), "AssertionError")])
@pytest.mark.parametrize("measured", [True, False])
def test_whatever_fails_is_known_by_its_place_and_why(
    reporter: Reporter, request: pytest.FixtureRequest, error: Exception, why: str, measured: bool
) -> None:
    item = copy(request.node)
    item.callspec = SimpleNamespace(params={"case": Case("streamed", "tiny", "sim", "float32")} if measured else {})
    with pytest.raises(type(error)) as raised:
        raise error
    call: Any = SimpleNamespace(excinfo=raised)
    hook = reporter.pytest_runtest_makereport(item, call)
    next(hook)
    with pytest.raises(StopIteration):
        hook.send(SimpleNamespace(when="setup", passed=False, skipped=False, failed=True))  # type: ignore[arg-type]
    failure = reporter._failures[-1]
    # Its decorators belong to a test.
    first_line = test_whatever_fails_is_known_by_its_place_and_why.__code__.co_firstlineno
    assert (failure.file, failure.line, failure.reason) == ("bench/plugin/test_reporter.py", first_line, why)
    assert failure.name.startswith("test_whatever_fails_is_known_by_its_place_and_why[")
    assert [one.problem for one in reporter._results[1:]] == ([Problem(Status.FAILED, why)] if measured else [])


@pytest.mark.parametrize("quiet", [True, False])
def test_quiet_makes_checkpoints_in_silence(
    pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch, quiet: bool
) -> None:
    output, errors = StringIO(), Terminal()
    monkeypatch.setattr("sys.stderr", errors)
    monkeypatch.setattr(progress, "DELAY_SECONDS", 0)
    monkeypatch.setattr(pytestconfig.option, "benchmark_quiet", quiet)
    terminal = pytest.TerminalReporter(pytestconfig, output)
    monkeypatch.setattr(pytestconfig.pluginmanager, "getplugin", lambda _: terminal)
    progress.write_line(pytestconfig, "it is made again")
    with progress.progress_bar(pytestconfig, "making", 10) as update:
        update(5)
    assert output.getvalue() == ("" if quiet else "it is made again\n")
    assert ("making" in errors.getvalue()) == (not quiet)


def test_no_folder_of_this_machine_is_recorded(tmp_path: Path) -> None:
    (tmp_path / "of my own").mkdir()
    (tmp_path / "of my own" / "z.py").write_text("def load(build, path, device): pass")
    settings = chosen(loader=[f"{tmp_path}/of my own/z.py:load"])
    settings = replace(settings, checkpoints=tmp_path / "checkpoints")
    reporter = Reporter(tmp_path / "project", settings, SimpleNamespace(), None)  # type: ignore[arg-type]
    why = f"ValueError: {tmp_path}/checkpoints/a b/x.pt, {tmp_path}/project/y.py, {tmp_path}/of my own/z.py"
    reporter._cells.append(Cell("streamed", "plain", Judged.REFUSED, 5, why=why))
    reporter._results.append(
        CaseResult(RowKey("streamed", "tiny"), Record(size="tiny", state_bytes=7), Problem(Status.FAILED, why))
    )
    written: dict[str, Any] = {}
    reporter.pytest_benchmark_update_json(written)
    assert written["conformance"][0]["why"] == "ValueError: a b/x.pt, y.py, z.py"
    assert written["problems"] == [
        {
            "strategy": "streamed",
            "size": "tiny",
            "verdict": "ValueError: a b/x.pt, y.py, z.py",
            "record": Record(size="tiny", state_bytes=7).as_json(),
        }
    ]


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("status", Status)
def test_who_requires_all_is_told_of_what_was_refused_or_skipped(
    reporter: Reporter, asked: bool, status: Status
) -> None:
    complaints: list[str] = []
    reporter._chosen = chosen(device="cpu", require_all=asked)
    reporter._regression.complain = complaints.append  # type: ignore[method-assign, assignment]
    problem = None if status == Status.OK else Problem(status, "too large")
    reporter._results[:] = [
        CaseResult(RowKey("baseline", "small")),
        CaseResult(RowKey("streamed", "small"), problem=problem),
    ]
    hook = reporter.pytest_runtestloop()
    next(hook)
    with pytest.raises(StopIteration):
        hook.send(True)
    work = {Status.REFUSED: "work", Status.SKIPPED: "were measured"}.get(status)
    said = [f"--require-all: 1 of 2 strategies {work} with small: baseline; 1 {status}"]
    assert complaints == (said if asked and work else [])


class Ended:
    """The end of a run: what was said of its page, and of what else failed it."""

    def __init__(self, reporter: Reporter, saved: Path | None, folder: Path | None, unsaved: str | None = None) -> None:
        self.complaints: list[str] = []
        storage = SimpleNamespace(saved=saved, path=saved.parent if saved else Path(), unsaved=unsaved)
        regression: Any = SimpleNamespace(storage=storage, runs=[], complain=self.complaints.append, benchmarks=[])
        # The folder need not be one.
        options = replace(chosen().options, report=folder)
        settings = replace(chosen(device="cpu"), options=options, checkpoints=Path("cache"))
        reporter._regression, reporter._chosen = regression, settings
        hook = reporter.pytest_sessionfinish(None)  # type: ignore[arg-type]
        next(hook)
        next(hook, None)
        self.said = reporter._page


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_that_is_not_recorded_has_no_page(reporter: Reporter, in_folder: Path) -> None:
    ended = Ended(reporter, None, in_folder / "report")
    assert (ended.said, ended.complaints, list(in_folder.iterdir())) == (None, [], [])


def test_where_a_run_cannot_be_recorded_it_says_how_to_get_a_page(reporter: Reporter, in_folder: Path) -> None:
    ended = Ended(reporter, None, in_folder / "report", unsaved="the disk is full")
    assert ended.said == "No page: it shows the recorded run; name another folder for both with --benchmark-storage"
    assert (ended.complaints, list(in_folder.iterdir())) == ([], [])


def test_without_the_extra_a_run_says_how_to_get_a_page(
    reporter: Reporter, in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "altair", None)
    ended = Ended(reporter, Runs(in_folder).write(1), in_folder / "there")
    assert ended.said == "For a page of this run, in there/: pip install 'weight-loading-bench[report]'"
    assert ended.complaints == []
    assert not (in_folder / "there").exists()


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ("folder", "--report: there/ cannot be written to: File exists"),
        ("template", "--report: the page cannot be made: RuntimeError: no such template"),
        ("record", "--report: the page cannot be made: Unreadable: cannot be read: Expecting property name"),
    ],
)
def test_a_page_that_cannot_be_made_is_a_complaint(
    reporter: Reporter, in_folder: Path, monkeypatch: pytest.MonkeyPatch, damage: str, complaint: str
) -> None:
    pytest.importorskip("altair", reason="pages want the extra: pip install '.[report]'")

    def broken(*_: object) -> None:
        raise RuntimeError("no such template")

    saved = Runs(in_folder).write(1)
    if damage == "folder":
        (in_folder / "there").write_text("")
    elif damage == "record":
        saved.write_text("{,")
    else:
        monkeypatch.setattr("bench.report.page.page.write_page", broken)
    ended = Ended(reporter, saved, in_folder / "there")
    assert ended.said is None
    [said] = ended.complaints
    assert said.startswith(complaint)
    assert "\n" not in said
