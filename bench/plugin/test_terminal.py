"""Tests that control characters from a file are shown in the terminal without effect."""

import sys
from io import StringIO
from types import SimpleNamespace, TracebackType
from typing import Any

import pytest

from bench.meters.allocations import LiveAllocation
from bench.plugin import progress
from bench.plugin.terminal import SafeFile, Terminal, pytest_cmdline_main, safe
from bench.report.alive import alive_lines
from model.printable import LONGEST_LINE

FORGED = "a\x1b[2K\x1b[1A\nERROR: forged\r\u202e\x9b"
SHOWN = r"a\x1b[2K\x1b[1A\nERROR: forged\r\u202e\x9b"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a line\n",
        "\tindented\n\n",
        "\x1b[31mred\x1b[0m \x1b[1;92mgreen\x1b[39;49;00m\n",
        "größe … 权重",
        "x" * LONGEST_LINE,
    ],
)
def test_right_text_is_left_as_it_is(text: str) -> None:
    assert safe(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07\n", "\\x1b[2J\\x1b]0;title\\x07\n"),
        ("E   a\rERROR: b", r"E   a\rERROR: b"),
        ("\x1b[8mhidden\x1b[31;8m", r"\x1b[8mhidden\x1b[31;8m"),
        ("\u2028\u202e\ud800", r"\u2028\u202e\ud800"),
        ("\x1b[31m" + "a" * 900_000, f"{'a' * 5000}... (890,000 characters left out) ...{'a' * 5000}"),
    ],
)
def test_whatever_else_is_written_is_shown(text: str, shown: str) -> None:
    assert safe(text) == shown


class OnTerminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("file", "over"), [(StringIO(), r"\r"), (OnTerminal(), "\r")])
def test_lines_are_written_over_on_a_terminal_only(file: StringIO, over: str) -> None:
    safe_file: Any = SafeFile(file)
    safe_file.write("\rcollecting\r")
    assert safe_file.getvalue() == rf"{over}collecting\r"


def test_all_that_pytest_writes_is_safe(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    output = StringIO()
    writer = pytest.TerminalReporter(pytestconfig, output)._tw
    monkeypatch.setattr(pytestconfig, "get_terminal_writer", lambda: writer)
    Terminal().pytest_sessionstart(SimpleNamespace(config=pytestconfig))  # type: ignore[arg-type]
    writer.line("\x1b[2J", red=True)
    writer.write("\ud800\n")
    assert output.getvalue() == "\\x1b[2J\n\\ud800\n"


def test_what_is_said_of_a_file_is_one_line(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    output = StringIO()
    terminal = pytest.TerminalReporter(pytestconfig, output)
    monkeypatch.setattr(pytestconfig.option, "benchmark_quiet", False)
    monkeypatch.setattr(pytestconfig.pluginmanager, "getplugin", lambda _: terminal)
    progress.write_line(pytestconfig, FORGED)
    assert output.getvalue() == f"{SHOWN}\n"
    assert alive_lines([LiveAllocation(2**20, 1, "a.py:1", FORGED)]) == [f"    1.00 MiB in 1 tensor: a.py:1 {SHOWN}"]


def test_an_error_of_usage_is_one_line(pytestconfig: pytest.Config) -> None:
    hook = pytest_cmdline_main()
    next(hook)
    with pytest.raises(pytest.UsageError) as raised:
        hook.throw(pytest.UsageError(FORGED))
    assert raised.value.args == (SHOWN,)
    hooks = [one.function for one in pytestconfig.hook.pytest_cmdline_main.get_hookimpls()]
    assert pytest_cmdline_main in hooks


def test_an_interrupt_where_python_knows_no_line_is_shown() -> None:
    """Python 3.11 has such places, and pytest subtracts one from the line."""
    here = TracebackType(None, sys._getframe(), 0, 7)
    nowhere = TracebackType(here, sys._getframe(), 2**20, -1)
    assert nowhere.tb_lineno is None
    excinfo = pytest.ExceptionInfo.from_exception(KeyboardInterrupt().with_traceback(nowhere))
    with pytest.raises(TypeError):
        excinfo.getrepr(funcargs=True)
    Terminal().pytest_keyboard_interrupt(excinfo)
    assert "KeyboardInterrupt" in str(excinfo.getrepr(funcargs=True))
