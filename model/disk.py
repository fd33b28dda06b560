"""What makes files survive a power cut, and runs at the same time wait for each other."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO


def sync_folder(folder: Path) -> None:
    """Make what was created or renamed in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def wait_for(lock: IO[bytes], operation: int, waiting: Callable[[], None]) -> None:
    """Take a lock, one of `fcntl.LOCK_SH` and `fcntl.LOCK_EX`; `waiting` is called first where others hold it."""
    if not lock_at_once(lock, operation):
        waiting()
        fcntl.flock(lock, operation)


def lock_at_once(lock: IO[bytes], operation: int) -> bool:
    """Take a lock if nobody holds one that is in its way; whether that is so."""
    try:
        fcntl.flock(lock, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
