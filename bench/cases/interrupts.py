"""Interrupts by SIGINT and by SIGTERM, which are one: they end a run as failures do, and leave no traceback anywhere.

To import this module first has what is imported after it, torch above all, end at once, with exit status 2.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

# Of pytest: its `ExitCode.INTERRUPTED`.
EXIT_STATUS = 2

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

Handler = Callable[[int, FrameType | None], object]


def interrupt_the_run() -> None:
    """Have a signal raise `KeyboardInterrupt`: a run is recorded as interrupted, and its processes are ended."""
    _handle(signal.default_int_handler)


def leave_quietly() -> None:
    """Have a signal raise `SystemExit`, where nothing would turn an interrupt into words."""
    _handle(_leave)


def be_no_worker() -> None:
    """Have what tests start in a process of pytest-xdist take itself for no part of it, and hear interrupts."""
    os.environ.pop("PYTEST_XDIST_WORKER", None)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(_signal: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(EXIT_STATUS)


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
