"""A pytest plugin that says on a terminal, to the right of pytest's dots, what is run and how long the rest takes."""

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from shutil import get_terminal_size

import pytest

from bench.cases.items import case_of
from bench.report.remaining import BYTES, Done, Work, seconds_left, status

# What the plugin is registered as.
STATUS = "weight loading status"

SAVE_CURSOR, RESTORE_CURSOR, ERASE_TO_END_OF_LINE = "\x1b7", "\x1b8", "\x1b[K"
LINE_ABOVE, COLUMN = "\x1b[A", "\x1b[{}G"

GAP = "  "


class Status:
    """What it writes is gone, and the cursor is where it was, before anything else is written."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._terminal: pytest.TerminalReporter | None = None
        self._tests = 0
        self._rest: dict[str, Work] = {}
        self._done: list[Done] = []
        self._name, self._seconds, self._passed = "", 0.0, False
        self._visible = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        self._terminal = terminal_for_status(self._config)
        self._rest = {item.nodeid: work_of(item) for item in session.items if self._terminal}
        self._tests = len(self._rest)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._name, self._seconds, self._passed = name_of(nodeid), 0.0, False
        self._show()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> Generator[None, None, None]:
        self._erase()
        yield
        self._seconds += report.duration
        self._passed |= report.when == "call" and report.passed
        # Of what comes after the call, pytest has more to say.
        if report.when == "setup" and report.passed:
            self._show()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._erase()
        work = self._rest.pop(nodeid, None)
        # What was skipped or failed may have been so before its work was done.
        if work and self._passed:
            self._done.append(Done(work, self._seconds))

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self) -> None:
        self._erase()

    @pytest.hookimpl(tryfirst=True)
    def pytest_internalerror(self) -> None:
        self._erase()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Leave the next line to what is written in a block; it has to clear it, but for what pytest writes."""
        if self._terminal is None:
            yield
            return
        visible, column = self._visible, self._config.get_terminal_writer().width_of_current_line
        self._erase()
        self._write("\n")
        try:
            yield
        finally:
            if self._config.get_terminal_writer().width_of_current_line == column:
                self._write(LINE_ABOVE + COLUMN.format(column + 1))
            if visible:
                self._show()

    def _show(self) -> None:
        if self._terminal is None:
            return
        writer = self._config.get_terminal_writer()
        # pytest takes very narrow terminals for wide ones. Behind the last column a cursor cannot stand.
        columns = min(writer.fullwidth, get_terminal_size().columns) - 1
        width = columns - writer.width_of_current_line - len(GAP)
        seconds = seconds_left(self._done, self._rest.values())
        place = f"{self._tests - len(self._rest) + 1} of {self._tests}"
        if text := status(self._name, place, seconds, width):
            self._write(f"{SAVE_CURSOR}{GAP}{text}{ERASE_TO_END_OF_LINE}{RESTORE_CURSOR}")
            self._visible = True

    def _erase(self) -> None:
        if self._visible:
            self._write(ERASE_TO_END_OF_LINE)
            self._visible = False

    def _write(self, text: str) -> None:
        """Past pytest's writer, which counts what it writes as columns of its line."""
        file = self._config.get_terminal_writer()._file  # noqa: SLF001 - it has no other name
        file.write(text)
        file.flush()


def terminal_for_status(config: pytest.Config) -> pytest.TerminalReporter | None:
    """The terminal on which a line can be written that is erased again; None where there is none, or none is wanted."""
    reporter: pytest.TerminalReporter | None = config.pluginmanager.getplugin("terminalreporter")
    dumb = os.environ.get("TERM") == "dumb" or bool(os.environ.get("CI"))
    # With -v every test has its line; what is not captured would be written between, and setups that are shown are.
    between = config.getoption("capture", "no") != "fd" or config.option.setupshow
    terse = config.get_verbosity() != 0 or config.option.benchmark_quiet
    return None if not reporter or not reporter.isatty or dumb or between or terse else reporter


def name_of(nodeid: str) -> str:
    """What tells a test from others of its function; the function where there are none."""
    function, _, parameters = nodeid.rpartition("::")[2].partition("[")
    return parameters.removesuffix("]") or function


def work_of(item: pytest.Item) -> Work:
    """The bytes that a measurement loads; any other test is just one."""
    function, case = item.nodeid.partition("[")[0], case_of(item)
    return Work(function, case.specification.footprint.state_bytes, BYTES) if case else Work(function)
