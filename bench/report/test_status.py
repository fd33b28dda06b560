import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.cases.case import Case
from bench.report.remaining import BYTES, Work
from bench.report.status import name_of, terminal_for_status, work_of
from bench.report.terminals import on_terminal, screen

CONFTEST = """
import pytest

from bench.report.status import STATUS, Status


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    config.pluginmanager.register(Status(config), STATUS)
"""

TESTS = """
import os
import signal
import sys

import pytest

from bench.report.progress import say, uncaptured


def test_fails():
    assert False


@pytest.mark.parametrize("name", ["one", "two"])
def test_passes(name):
    print("captured")


@pytest.fixture
def bar(pytestconfig):
    with uncaptured(pytestconfig):
        if not os.environ.get("CI"):
            sys.stderr.write("\\r50 %")
            sys.stderr.write("\\r    \\r")
        pytest.skip("no memory for it")


def test_waits(bar):
    pass


@pytest.fixture
def line(pytestconfig):
    with uncaptured(pytestconfig):
        say(pytestconfig, "it is made again")


def test_says(line):
    pass


def test_stops():
    if os.environ.get("STOP"):
        os.kill(os.getpid(), signal.SIGINT)
"""


def shown(written: str) -> list[str]:
    """Everything that was shown for a while, each once."""
    return list(dict.fromkeys(re.findall(r"\x1b7  (.*?)\x1b\[K\x1b8", written)))


@pytest.fixture
def folder(pytester: pytest.Pytester) -> Path:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_it=TESTS)
    return pytester.path


def test_what_is_run_is_shown_and_nothing_of_it_stays(folder: Path) -> None:
    written = on_terminal(folder)
    assert shown(written) == [
        # What failed says nothing of what takes its time.
        *("test_fails, 1 of 6", "one, 2 of 6", "two, 3 of 6, about 5 s left"),
        *(f"test_{name}, {place} of 6, about 5 s left" for name, place in (("waits", 4), ("says", 5), ("stops", 6))),
    ]
    assert not re.search(r"\x1b8(?!\x1b\[K)", written), "something is written beside it"
    without = on_terminal(folder, CI="true")
    assert "test_it.py F..s" in screen(without)
    assert "it is made again" in screen(without)
    assert not shown(without)
    assert screen(written) == screen(without)


def test_nothing_stays_of_a_run_that_was_stopped(folder: Path) -> None:
    written = on_terminal(folder, STOP="yes")
    assert len(shown(written)) == 6
    assert screen(written) == screen(on_terminal(folder, STOP="yes", CI="true"))


def test_a_narrow_terminal_wraps_nothing(folder: Path) -> None:
    written = on_terminal(folder, columns=34)
    assert shown(written) == ["test_fails, 1 of 6", "one, 2 of 6", "about 5 s left", "5 of 6, about 5 s left"]


@pytest.mark.parametrize(
    ("environment", "options", "wanted"),
    [
        ({}, {}, True),
        ({"CI": "true"}, {}, False),
        ({"TERM": "dumb"}, {}, False),
        ({}, {"verbose": 1}, False),
        ({}, {"verbose": -1}, False),
        ({}, {"capture": "no"}, False),
        ({}, {"setupshow": True}, False),
        ({}, {"benchmark_quiet": True}, False),
        ({}, {"isatty": False}, False),
        ({}, {"terminal": False}, False),
    ],
)
def test_it_is_for_people_who_look(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], options: dict[str, Any], wanted: bool
) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    usual = {"verbose": 0, "capture": "fd", "setupshow": False, "benchmark_quiet": False}
    option = SimpleNamespace(**usual | options)
    reporter = SimpleNamespace(isatty=options.get("isatty", True)) if options.get("terminal", True) else None
    config: Any = SimpleNamespace(
        option=option,
        pluginmanager=SimpleNamespace(getplugin=lambda _: reporter),
        getoption=lambda name, _: getattr(option, name),
        get_verbosity=lambda: option.verbose,
    )
    assert (terminal_for_status(config) is not None) == wanted


def test_a_measurement_has_as_much_work_as_its_model_has_bytes() -> None:
    case = Case("streamed", "tiny", "cpu", "float32")
    item: Any = SimpleNamespace(nodeid="a.py::test_x[streamed]", callspec=SimpleNamespace(params={"case": case}))
    assert work_of(item) == Work("a.py::test_x", 34_782_720, BYTES)
    assert work_of(SimpleNamespace(nodeid="a.py::test_y")) == Work("a.py::test_y")  # type: ignore[arg-type]


def test_a_test_is_named_by_what_tells_it_from_others() -> None:
    assert name_of("bench/test_x.py::test_x[streamed-xl-sim]") == "streamed-xl-sim"
    assert name_of("bench/test_x.py::TestIt::test_x") == "test_x"
