"""A pytest plugin that prints each warning of the user's code once, from all processes of the run."""

import os
from tempfile import NamedTemporaryFile

import pytest

from bench.plugin.progress import write_line
from model.run_folder import run_folder
from model.user.user_code import WARNINGS_FILE


class UserWarnings:
    """Prints the lines that are appended to the file of `WARNINGS_FILE`, which lasts as long as the run."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._written: set[str] = set()
        self._file = NamedTemporaryFile(  # noqa: SIM115 - it lasts
            "r", prefix="warnings-", dir=run_folder(), encoding="utf-8"
        )
        # A run within a test is one of its own.
        self._before = os.environ.get(WARNINGS_FILE)
        os.environ[WARNINGS_FILE] = self._file.name

    def write_new(self) -> None:
        """Write the warnings that have come since."""
        for line in self._file.read().splitlines():
            if line not in self._written:
                self._written.add(line)
                write_line(self._config, line)

    def pytest_runtest_logfinish(self) -> None:
        self.write_new()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        self.write_new()

    def pytest_unconfigure(self) -> None:
        self._file.close()
        if self._before is None:
            os.environ.pop(WARNINGS_FILE, None)
        else:
            os.environ[WARNINGS_FILE] = self._before
