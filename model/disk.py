"""Files that survive a power cut and a killed run, and runs at the same time that wait for each other."""

import fcntl
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

# How the name ends of what is not whole yet.
UNFINISHED = ".unfinished"


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


def lock_at_once(lock: IO[bytes] | int, operation: int) -> bool:
    """Take a lock if nobody holds one that is in its way; whether that is so."""
    try:
        fcntl.flock(lock, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def remove_unfinished(folder: Path, pattern: str = "*") -> None:
    """Remove what dead runs left half made in `folder`, of all whose making holds the lock of the file `NAME.lock`."""
    for left in folder.glob(f"{pattern}{UNFINISHED}"):
        lock = left.with_name(f"{left.name.removesuffix(UNFINISHED)}.lock")
        with suppress(OSError), lock.open("rb") as held:
            if lock_at_once(held, fcntl.LOCK_EX):
                shutil.rmtree(left)
