"""A pytest plugin that says what the user's code warned of: in any process of the run, each warning once."""

import os
from tempfile import NamedTemporaryFile

import pytest

from bench.plugin.progress import say
from model.run_folder import run_folder
from model.user.user_code import WARNINGS_FILE


class UserWarnings:
    """Says the lines that are appended to the file of `WARNINGS_FILE`, which lasts as long as the run."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._said: set[str] = set()
        self._file = NamedTemporaryFile(  # noqa: SIM115 - it lasts
            "r", prefix="warnings-", dir=run_folder(), encoding="utf-8"
        )
        # A run within a test is one of its own.
        self._before = os.environ.get(WARNINGS_FILE)
        os.environ[WARNINGS_FILE] = self._file.name

    def say(self) -> None:
        """Say what has come since."""
        for line in self._file.read().splitlines():
            if line not in self._said:
                self._said.add(line)
                say(self._config, line)

    def pytest_runtest_logfinish(self) -> None:
        self.say()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        self.say()

    def pytest_unconfigure(self) -> None:
        self._file.close()
        if self._before is None:
            os.environ.pop(WARNINGS_FILE, None)
        else:
            os.environ[WARNINGS_FILE] = self._before
