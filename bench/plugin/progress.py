"""Output of a run while its tests run: a progress bar for checkpoints, and lines between the lines of pytest.

`StatusLine` says meanwhile what is being measured.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from tqdm import tqdm

from bench.plugin.status_line import StatusLine
from model.printable import LONGEST_LINE, printable

# Shorter work needs no bar.
DELAY_SECONDS = 2.0


@contextmanager
def progress_bar(config: pytest.Config, title: str, total_bytes: int) -> Iterator[Callable[[int], object]]:
    """Show a bar with the time left, on a terminal only, for work that takes long; yields what adds bytes done."""
    quiet, reporter = config.option.benchmark_quiet, config.pluginmanager.getplugin("terminalreporter")
    if reporter and reporter.isatty and not quiet:
        # Below pytest's dots, not over them.
        _end_line(reporter)
    # tqdm's None: where there is no terminal.
    disable = True if quiet else None
    with tqdm(
        desc=title,
        total=total_bytes,
        unit="B",
        unit_scale=True,
        delay=DELAY_SECONDS,
        leave=False,
        disable=disable,
    ) as bar:
        yield bar.update


def write_line(config: pytest.Config, line: str) -> None:
    """Write a line between pytest's own, unless `--benchmark-quiet` is there."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter and not config.option.benchmark_quiet:
        _end_line(reporter)
        reporter.write_line(printable(line, LONGEST_LINE))


def _end_line(reporter: Any) -> None:
    status = reporter.config.pluginmanager.getplugin(StatusLine.NAME)
    if isinstance(status, StatusLine):
        status.erase()
    reporter.ensure_newline()
    # It knows nothing of dots that follow a line of this suite, nor of those of `-q`.
    if reporter._tw.width_of_current_line:  # noqa: SLF001
        reporter._tw.line()  # noqa: SLF001


@contextmanager
def uncaptured(config: pytest.Config) -> Iterator[None]:
    """Let what is written in a block reach the terminal."""
    manager = config.pluginmanager.getplugin("capturemanager")
    with manager.global_and_fixture_disabled() if manager else nullcontext():
        yield
