"""A folder for temporary files of a run, removed at its end, or by the next run if it was killed."""

import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing.process import current_process
from multiprocessing.util import Finalize
from pathlib import Path

# Short: sockets in the folder have paths of 107 bytes at most.
PREFIX = "wl-run-"
# As `tempfile` names it.
_NAME = re.compile(rf"{PREFIX}[a-z0-9_]{{8}}")
# A file that tells such a folder from another one with a similar name.
MARK = "of-a-run-of-weight-loading"

# A name of a socket of `multiprocessing`, and the longest path of a socket on Linux.
_SOCKET = "listener-12345678"
_MOST_SOCKET_BYTES = 107

# The environment variable that names the folder of the run to its processes.
VARIABLE = "WEIGHT_LOADING_RUN_FOLDER"


def run_folder() -> str | None:
    """Return the folder for temporary files in any process of a run; None: that of `tempfile`."""
    folder = os.environ.get(VARIABLE)
    return folder if folder and Path(folder).is_dir() else None


@cache
def begin_run_folder(cache_folder: Path) -> Path:
    """Make the folder, lock it as long as this process lives, and remove those of dead runs. Raises `OSError`.

    Temporary files of `multiprocessing` for this process and its children are there too.
    """
    parent = Path(tempfile.gettempdir())
    remove_dead(parent)
    remove_dead(cache_folder)
    folder, lock = _made_and_locked(parent)
    os.environ[VARIABLE] = str(folder)
    if len(os.fsencode(folder / _SOCKET)) <= _MOST_SOCKET_BYTES:
        # It would make a folder of its own, whose name does not tell that it belongs to this suite.
        current_process()._config.setdefault("tempdir", str(folder))  # type: ignore[attr-defined]  # noqa: SLF001
    Finalize(None, _remove, args=(folder, lock), exitpriority=-100)
    return folder


@contextmanager
def folder_beside(parent: Path) -> Iterator[Path]:
    """Make a folder in `parent`, and so on its file system, as long as this block lasts."""
    folder, lock = _made_and_locked(parent)
    try:
        yield folder
    finally:
        _remove(folder, lock)


def remove_dead(parent: Path) -> None:
    """Remove folders of runs in `parent` that are this user's and that no living process has locked."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            status = folder.lstat()
            if _NAME.fullmatch(folder.name) and stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
                _remove_if_dead(folder)


def _remove_if_dead(folder: Path) -> None:
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if (folder / MARK).exists():
            _empty(folder)
        folder.rmdir()  # Without the mark: its run died before it wrote anything, or it is of no run and not empty.
    finally:
        os.close(lock)


def _made_and_locked(parent: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        # Before it is locked, another run may remove it as that of a dead run.
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            (folder / MARK).touch()
            return folder, lock


def _remove(folder: Path, lock: int) -> None:
    with suppress(OSError):
        _empty(folder)
        folder.rmdir()
    os.close(lock)


def _empty(folder: Path) -> None:
    """Remove everything in a folder, the mark last: if this is killed, the next run knows the folder by the mark."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != MARK:
            path.unlink()
    (folder / MARK).unlink()
