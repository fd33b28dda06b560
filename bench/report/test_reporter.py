from copy import copy
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.cases.case import Case
from bench.report import progress
from bench.report.reporter import Reporter
from bench.report.rows import Outcome, Place

FAILED = Outcome("streamed", "small", "took too much", {}, Place("bench/test_x.py", 37, "streamed-small-sim"))

ANNOTATIONS = [
    "::error::nothing was compared",
    "::error file=bench/test_x.py,line=37,title=streamed-small-sim::took too much",
]


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def reporter() -> Reporter:
    """Of a run in which a benchmark failed, and one thing more."""
    chosen: Any = SimpleNamespace(conformance=False, explain=False, title="to sim", export=None)
    gate: Any = SimpleNamespace(
        shown=None, comparison=None, history=None, recorded=None, complaints=["nothing was compared"]
    )
    reporter = Reporter(chosen, gate, None)
    reporter._outcomes.append(FAILED)
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
    """What is written at the end of a run."""

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


def test_sections_come_before_complaints(summary: Summary) -> None:
    title, *lines = summary.lines()
    assert " weight loading: to sim " in title
    assert lines[-2:] == ["streamed-small: took too much", "ERROR: nothing was compared"]


def test_quiet_leaves_the_complaints_and_the_page_of_a_job(summary: Summary, tmp_path: Path) -> None:
    assert summary.lines(quiet=True) == ["ERROR: nothing was compared"]
    assert "took too much" in (tmp_path / "page.md").read_text()


@pytest.mark.parametrize("quiet", [True, False])
def test_github_gets_annotations(summary: Summary, quiet: bool) -> None:
    assert summary.lines(quiet=quiet, actions="true")[-2:] == ANNOTATIONS


@pytest.mark.parametrize("actions", [None, "false"])
def test_nobody_else_gets_annotations(summary: Summary, actions: str | None) -> None:
    assert not [line for line in summary.lines(actions=actions) if line.startswith("::")]


@pytest.mark.parametrize(("accepted", "kinds"), [(False, ["error", "error", "error", "warning"]), (True, None)])
def test_what_vanished_is_an_error_until_it_is_let_go(
    reporter: Reporter, summary: Summary, monkeypatch: pytest.MonkeyPatch, accepted: bool, kinds: list[str] | None
) -> None:
    reporter._gate.shown = SimpleNamespace(accepted=accepted)  # type: ignore[misc, assignment]
    told = ["VANISHED: test_x[y]", "NEW: test_x[z]", "NOT COMPARED: test_x[w]"]
    monkeypatch.setattr("bench.report.sections.comparison_lines", lambda *_: told)
    monkeypatch.setattr("bench.report.sections.comparison_title", lambda _: "compared")
    monkeypatch.setattr("bench.report.sections.comparison_markdown", lambda *_: "")
    lines = [line for line in summary.lines(actions="true") if line.startswith("::")]
    assert [line.split("::")[1].split()[0] for line in lines] == (kinds or ["error", "error", "warning"])
    assert ("::error::VANISHED: test_x[y]" in lines) == (not accepted)
    assert lines[-1] == "::warning::NOT COMPARED: test_x[w]"


def test_an_outcome_knows_where_its_test_is(reporter: Reporter, request: pytest.FixtureRequest) -> None:
    item = copy(request.node)
    case = Case("streamed", "tiny", "sim", "float32")
    item.callspec = SimpleNamespace(params={"case": case})
    hook = reporter.pytest_runtest_makereport(item, None)  # type: ignore[arg-type]
    next(hook)
    with pytest.raises(StopIteration):
        hook.send(SimpleNamespace(when="call", passed=True, skipped=False))  # type: ignore[arg-type]
    first_line = test_an_outcome_knows_where_its_test_is.__code__.co_firstlineno
    assert reporter._outcomes[-1].place == Place("bench/report/test_reporter.py", first_line, "streamed-tiny-sim")


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
    progress.say(pytestconfig, "it is made again")
    with progress.progress_bar("making", 10, quiet=quiet) as update:
        update(5)
    assert output.getvalue() == ("" if quiet else "it is made again\n")
    assert ("making" in errors.getvalue()) == (not quiet)
