"""Escapes control characters from files and libraries before they are printed to the terminal."""

import re
from collections.abc import Generator
from typing import Any, TextIO

import pytest

from bench import interrupts
from model.printable import LONGEST_LINE, escaped, printable

# What lines are made of beside printable text: their ends, indents, and colours that pytest and its highlighter set.
_LAYOUT = re.compile(r"(\n|\t|\x1b\[(?:[0-79]|\d\d)?(?:;(?:[0-79]|\d\d))*m)")


def safe(text: str) -> str:
    r"""Return lines as they are, but with `\x1b` and the like for what would move a cursor, and not without end."""
    if text.isprintable() and len(text) <= LONGEST_LINE:
        return text
    return "\n".join(_safe_line(line) for line in text.split("\n"))


def _safe_line(line: str) -> str:
    if len(line) > LONGEST_LINE:
        return printable(_LAYOUT.sub("", line), LONGEST_LINE)
    return "".join(
        part if place % 2 or part.isprintable() else "".join(map(escaped, part))
        for place, part in enumerate(_LAYOUT.split(line))
    )


class SafeFile:
    """The file that pytest writes to, which is given safe text only."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        # pytest writes over its last line on a terminal.
        over = "\r" if text.startswith("\r") and self._file.isatty() else ""
        return self._file.write(over + safe(text.removeprefix(over)))

    def write_raw(self, text: str) -> None:
        """Write text that moves the cursor, and which is this suite's own."""
        self._file.write(text)
        self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class Terminal:
    """A pytest plugin: the last way out of a run, for its words and for signals. Registered after the others."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        if session.config.pluginmanager.hasplugin("terminalreporter"):
            writer = session.config.get_terminal_writer()
            writer._file = SafeFile(writer._file)  # noqa: SLF001 - it has no other name

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self) -> Generator[None, object, object]:
        """Have what comes after the tests end at once for a signal: pytest would show where it was."""
        interrupts.leave_quietly()
        return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Leave out calls of which Python knows no line, as of some that a signal interrupts: pytest would raise."""
        excinfo.traceback = excinfo.traceback.filter(_has_line)
        excinfo.value.__cause__ = excinfo.value.__context__ = None


def _has_line(entry: Any) -> bool:
    try:
        return entry.lineno is not None
    except TypeError:
        return False


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main() -> Generator[None, object, object]:
    """Have errors of usage, which pytest writes as they are, take a line each."""
    try:
        return (yield)
    except pytest.UsageError as error:
        raise pytest.UsageError(*(printable(str(message), LONGEST_LINE) for message in error.args)) from None
