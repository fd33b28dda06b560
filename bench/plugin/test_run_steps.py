"""Tests of what a run says of its measurements, before and after an interrupt, and while they run."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.plugin import run_steps
from bench.plugin.run_steps import RunSteps, Step, step_of
from bench.plugin.status_line import StatusLine
from bench.plugin.terminal import SafeFile

ROOT = Path(__file__).parents[2]

STEPS = {
    "a": Step("peak memory", "baseline", "small"),
    "b": Step("peak memory", "streamed", "small"),
    "c": Step("load time", "baseline", "small"),
    "d": Step("load time", "streamed", "small"),
}


def interrupted(steps: dict[str, Step], *done: str) -> RunSteps:
    """Return the steps of a run that was interrupted."""
    found = RunSteps()
    found._steps.update(steps)
    found._done.update(done)
    found.pytest_keyboard_interrupt()
    return found


def test_a_run_that_ends_says_nothing() -> None:
    found = RunSteps()
    found._steps.update(STEPS)
    assert not found.interruption(is_recorded=True)
    assert not interrupted({}).interruption(is_recorded=False)


def test_an_interrupted_run_says_what_it_has_and_what_is_missing() -> None:
    assert interrupted(STEPS, "a").interruption(is_recorded=True) == (
        "Interrupted: 1 of 4 measurements are done; missing: peak memory of streamed; load time of all 2. The run is "
        "recorded as interrupted, and no run is compared with it; the same command measures all again."
    )
    assert ". The run is not recorded; " in interrupted(STEPS).interruption(is_recorded=False)
    assert "4 of 4 measurements are done. " in interrupted(STEPS, *STEPS).interruption(is_recorded=False)


def test_sizes_are_named_where_there_are_several() -> None:
    steps = STEPS | {"e": Step("load time", "streamed", "large")}
    assert "load time of streamed-large" in interrupted(steps, "a", "b", "c", "d").interruption(is_recorded=True)


@pytest.mark.parametrize(("when", "passed", "done"), [("setup", True, 0), ("setup", False, 1), ("call", True, 1)])
def test_a_measurement_is_done_when_its_test_has_a_result(when: str, passed: bool, done: int) -> None:
    found = interrupted(STEPS)
    found.pytest_runtest_logreport(SimpleNamespace(when=when, passed=passed, nodeid="a"))  # type: ignore[arg-type]
    assert found.interruption(is_recorded=True).startswith(f"Interrupted: {done} of 4 ")


def test_every_test_that_measures_has_a_name() -> None:
    """Of the benchmarks, which take a case: `test_a` of a file is named by its end."""
    tests = {
        name
        for file in ROOT.glob("bench/test_*.py")
        for name in re.findall(r"^def (test_\w+)\(.*?case: ", file.read_text(), re.MULTILINE | re.DOTALL)
    }
    assert len(tests) > 8
    for name in tests:
        assert [what for end, what in run_steps.STEPS if name.endswith(end)], name


def test_a_test_without_a_case_measures_nothing(request: pytest.FixtureRequest) -> None:
    assert step_of(request.node) is None


class Terminal:
    """A reporter of pytest on a terminal of some columns, as far as a status line asks."""

    def __init__(self, columns: int, used: int) -> None:
        self.written: list[str] = []
        self.isatty = True
        file = SimpleNamespace(write=self.written.append, flush=lambda: None)
        self._tw = SimpleNamespace(fullwidth=columns, width_of_current_line=used, _file=SafeFile(file))  # type: ignore[arg-type]


def status_line(terminal: Terminal, **options: object) -> StatusLine:
    known = {"verbose": 0, "capture": "fd", "benchmark_quiet": False} | options
    plugins = SimpleNamespace(getplugin=lambda _: terminal)
    return StatusLine(SimpleNamespace(option=SimpleNamespace(**known), pluginmanager=plugins))  # type: ignore[arg-type]


def shown(terminal: Terminal, **options: object) -> str:
    """Return what a status line writes before a test has a result."""
    line = status_line(terminal, **options)
    line._step = STEPS["b"]
    line.pytest_runtest_logstart()
    return "".join(terminal.written)


def test_what_is_measured_stands_beside_the_dots_and_is_erased() -> None:
    terminal = Terminal(80, 30)
    line = status_line(terminal)
    line._step = STEPS["b"]
    line.pytest_runtest_logstart()
    line.pytest_runtest_logreport(SimpleNamespace(when="setup", passed=True))  # type: ignore[arg-type]
    assert terminal.written == ["\x1b7 streamed: peak memory (small)"]
    line.pytest_runtest_logreport(SimpleNamespace(when="call", passed=True))  # type: ignore[arg-type]
    line.erase()
    assert terminal.written[1:] == ["\x1b8\x1b[K"]


def test_it_leaves_room_for_the_percentage() -> None:
    for used in range(81):
        text = shown(Terminal(80, used)).removeprefix("\x1b7")
        assert not text or used + len(text) <= 80 - len(" [100%]")
        assert bool(text) == (used <= 80 - 24)


@pytest.mark.parametrize("options", [{"verbose": 1}, {"capture": "no"}, {"benchmark_quiet": True}])
def test_it_is_not_there_where_lines_are_written(options: dict[str, object]) -> None:
    assert not shown(Terminal(80, 0), **options)


def test_it_is_not_in_a_log() -> None:
    terminal = Terminal(80, 0)
    terminal.isatty = False
    assert not shown(terminal)
