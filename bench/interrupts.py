"""Interrupts by SIGINT and by SIGTERM, which are one: they end a run as failures do, and leave no traceback anywhere.

A second one ends the process while the first is still being dealt with: it would be raised anywhere in that.

To import this module first has what is imported after it, torch above all, end at once, with exit status 2.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

# Of pytest: its `ExitCode.INTERRUPTED`.
EXIT_STATUS = 2

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

Handler = Callable[[int, FrameType | None], object]


def interrupt_the_run() -> None:
    """Have a signal raise `KeyboardInterrupt`: a run is recorded as interrupted, and its processes are ended."""
    _handle(_interrupt)


def leave_quietly() -> None:
    """Have a signal raise `SystemExit`, where nothing would turn an interrupt into words; not after an interrupt."""
    if _end_at_once not in map(signal.getsignal, _SIGNALS):
        _handle(_leave)


def forget_xdist_worker() -> None:
    """Have processes that tests start in a worker of pytest-xdist be no workers, and receive interrupts."""
    os.environ.pop("PYTEST_XDIST_WORKER", None)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """Have a SIGINT in this block raise `KeyboardInterrupt`, without an effect on the run: for tests that send one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    _handle(_end_at_once)
    raise KeyboardInterrupt


def _leave(_signal: int, _frame: FrameType | None) -> NoReturn:
    _handle(_end_at_once)
    sys.exit(EXIT_STATUS)


def _end_at_once(_signal: int, _frame: FrameType | None) -> NoReturn:
    # The processes of a run end with it, and the next run removes its files.
    os._exit(EXIT_STATUS)


def _leave_at_once(_signal: int, _frame: FrameType | None) -> NoReturn:
    # Modules catch what is raised while they are imported. Nothing has been made yet that would have to be removed.
    os._exit(EXIT_STATUS)


def _handle(handler: Handler) -> None:
    if threading.current_thread() is not threading.main_thread():
        return  # Python lets no other thread do it.
    for number in _SIGNALS:
        # A shell has what it runs in the background ignore SIGINT.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


_handle(_leave_at_once)
