"""Atomic writes of files and folders, and locks between runs at the same time."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

# The ending of a name while its file or folder is not whole.
UNFINISHED = ".unfinished"


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yield another path to write a file or a folder to, and rename it to `path` when this block ends.

    If the block fails, or the rename, nothing is left, and `path` is as it was. Files within a folder are not synced.
    """
    unfinished = path.with_name(path.name + UNFINISHED)
    _remove(unfinished)  # A killed run may have left it.
    try:
        yield unfinished
        below = unfinished.iterdir() if unfinished.is_dir() else ()
        for written in (unfinished, *(folder for folder in below if folder.is_dir())):
            _sync(written)
        unfinished.rename(path)
        _sync(path.parent)
    finally:
        _remove(unfinished)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Write the content of a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def wait_for(lock: IO[bytes], operation: int, waiting: Callable[[], None]) -> None:
    """Take a lock, `fcntl.LOCK_SH` or `fcntl.LOCK_EX`; call `waiting` first if another process holds it."""
    if not lock_at_once(lock, operation):
        waiting()
        fcntl.flock(lock, operation)


def lock_at_once(lock: IO[bytes] | int, operation: int) -> bool:
    """Take a lock unless another one is in its way; return whether it was taken."""
    try:
        fcntl.flock(lock, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def remove_unfinished(folder: Path, pattern: str = "*") -> None:
    """Remove unfinished folders of dead runs in `folder`: those without a process that holds the lock `NAME.lock`."""
    for left in folder.glob(f"{pattern}{UNFINISHED}"):
        lock = left.with_name(f"{left.name.removesuffix(UNFINISHED)}.lock")
        with suppress(OSError), lock.open("rb") as held:
            if lock_at_once(held, fcntl.LOCK_EX):
                shutil.rmtree(left)
