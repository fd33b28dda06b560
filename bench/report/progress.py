"""What is said while a run makes its checkpoints: a bar on a terminal, and a line where something was mended."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
from tqdm import tqdm

# Shorter work needs no bar.
DELAY_SECONDS = 2.0


@contextmanager
def progress_bar(what: str, total_bytes: int) -> Iterator[Callable[[int], object]]:
    """A bar with the time left, on a terminal only, for work that takes long; yields what to tell it of bytes done."""
    with tqdm(
        desc=what, total=total_bytes, unit="B", unit_scale=True, delay=DELAY_SECONDS, leave=False, disable=None
    ) as bar:
        yield bar.update


def say(config: pytest.Config, line: str) -> None:
    """Write a line between pytest's own."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter:
        reporter.ensure_newline()
        reporter.write_line(line)


def uncaptured(config: pytest.Config) -> AbstractContextManager[None]:
    """Let what is written in a block reach the terminal."""
    manager = config.pluginmanager.getplugin("capturemanager")
    return manager.global_and_fixture_disabled() if manager else nullcontext()
