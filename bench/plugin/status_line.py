"""The measurement that is running, beside pytest's dots on a terminal: it is gone when the measurement ends."""

import os
from collections.abc import Generator
from typing import Any, ClassVar

import pytest

from bench.plugin.run_steps import Step, step_of
from bench.plugin.selection import conformance_case_of
from bench.plugin.terminal import SafeFile
from model.printable import printable

# pytest writes how much is done into the last columns of a line.
PERCENTAGE = len(" [100%]")
# With less room than this, a name says nothing.
LEAST_COLUMNS = 16

_SAVE, _RESTORE, _ERASE = "\x1b7", "\x1b8", "\x1b[K"


class StatusLine:
    """A pytest plugin that writes nothing in a log, with `-v`, `-s` or `--benchmark-quiet`.

    pytest names the file of the tests there, and with `-v` each test.
    """

    NAME: ClassVar[str] = "status line"

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._step: Step | None = None
        self._is_shown = False

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logstart(self) -> None:
        """Write after pytest has written the name of the file, and before it captures what tests write."""
        if self._step:
            self._show(str(self._step))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "setup" or not report.passed:
            self.erase()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self._step = None if _may_print(item) else step_of(item)
        try:
            return (yield)
        finally:
            self.erase()

    def erase(self) -> None:
        """Make room for what pytest writes."""
        if self._is_shown:
            self._is_shown = False
            self._write(f"{_RESTORE}{_ERASE}")

    def _show(self, text: str) -> None:
        reporter = self._reporter
        if not reporter:
            return
        room = reporter._tw.fullwidth - reporter._tw.width_of_current_line - PERCENTAGE - 1  # noqa: SLF001
        # Wide characters would need more columns than there are.
        if room >= LEAST_COLUMNS and text.isascii():
            self._is_shown = True
            self._write(f"{_SAVE} {printable(text[:room], room)}")

    @property
    def _reporter(self) -> Any:
        """The reporter of pytest, if it writes to a terminal that shows dots; or None."""
        option, reporter = self._config.option, self._config.pluginmanager.getplugin("terminalreporter")
        is_plain = option.verbose <= 0 and option.capture != "no" and not option.benchmark_quiet
        is_plain = is_plain and os.environ.get("TERM") != "dumb"
        return reporter if reporter and reporter.isatty and is_plain else None

    def _write(self, text: str) -> None:
        file = self._reporter._tw._file  # noqa: SLF001 - it has no other name
        if isinstance(file, SafeFile):
            file.write_raw(text)


def _may_print(item: pytest.Item) -> bool:
    """Return True for a test whose processes run code of the user's, and are not captured."""
    conformance_case = conformance_case_of(item)
    return bool(item.get_closest_marker("own_model") or (conformance_case and conformance_case.user_strategy))
