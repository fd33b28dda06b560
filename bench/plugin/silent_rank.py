"""A pytest plugin for ranks other than 0: they print nothing and write no files."""

import os
from pathlib import Path

import pytest


class SilentRank:
    """Leaves reports and records to the process of rank 0."""

    def __init__(self, config: pytest.Config) -> None:
        option = config.option
        option.benchmark_autosave = option.benchmark_save = option.benchmark_json = None
        option.benchmark_quiet = True

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        terminal = session.config.pluginmanager.getplugin("terminalreporter")
        if terminal is not None:
            terminal._tw._file = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SLF001, SIM115 - it has no other name, and lasts
