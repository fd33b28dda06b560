"""What a process does not do that measures ranks, but not rank 0: it says nothing, and writes nothing."""

import os
from pathlib import Path

import pytest


def follow(config: pytest.Config) -> None:
    """Leave it to the process of rank 0 to say and to record what was measured."""
    option = config.option
    option.benchmark_autosave = option.benchmark_save = option.benchmark_json = None
    option.benchmark_quiet = True
    terminal = config.pluginmanager.getplugin("terminalreporter")
    if terminal is not None:
        terminal._tw._file = Path(os.devnull).open("w")  # noqa: SLF001, SIM115 - it has no other name, and lasts
