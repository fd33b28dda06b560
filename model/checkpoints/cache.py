"""A folder that keeps checkpoints between runs. Each is made once; runs at the same time share it."""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import IO

import psutil

from model.byte_sizes import decimal_size
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.file_identity import file_identities
from model.checkpoints.making import make
from model.checkpoints.manifest import misfit
from model.checkpoints.specification import Specification
from model.disk import UNFINISHED, lock_at_once, remove_unfinished, wait_for, written_aside
from model.weights import Progress

# Left free on the disk, whatever is made; or as much as is made, where that is less.
RESERVE_BYTES = 64 * 2**20

# Between two tries to be the one that makes or mends a checkpoint.
RETRY_SECONDS = 0.2


# What the suite keeps here begins with it.
NAMES = ("gpt2-*", "own-*")

# Opens a progress bar, with its title and its bytes.
ShowProgress = Callable[[str, int], AbstractContextManager[Progress]]


def no_progress(_title: str, _total_bytes: int) -> AbstractContextManager[Progress]:
    return nullcontext(lambda _: None)


class DiskTooSmall(Exception):
    """Not even one of the checkpoints that a run needs fits the disk, with everything removable removed."""


class MemoryTooSmall(Exception):
    """The machine cannot hold the model whose checkpoint is to be made."""


def cache_folder() -> Path:
    """Return the default folder for checkpoints, and for whatever else is made once."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "weight-loading"


class CheckpointCache:
    """Checkpoints below `folder`, each in a folder of its own that gets its name when it is complete.

    A run holds a shared lock on every checkpoint it uses, and an exclusive one to make, mend or remove one:
    runs at the same time wait for each other.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], show_progress: ShowProgress = no_progress) -> None:
        self.folder = folder
        self._say = say
        self._show_progress = show_progress
        self._held: dict[Specification, tuple[ExitStack, Checkpoint]] = {}

    def get(self, specification: Specification) -> Checkpoint:
        """Return the checkpoint, made if it is missing or no longer fits; one that is held is not looked at again.

        No other run removes it before `close`; this run may, to make room for another. Raises `DiskTooSmall` or
        `MemoryTooSmall` before the first byte is written, `OSError` if it cannot be.
        """
        if not self._held:
            for name in NAMES:
                remove_unfinished(self.folder, name)
        if specification not in self._held:
            self._held[specification] = self._hold(specification)
        return self._held[specification][1]

    def held(self) -> list[Checkpoint]:
        """The checkpoints that this run uses."""
        return [checkpoint for _, checkpoint in self._held.values()]

    def close(self) -> None:
        """Let other runs remove what this one used."""
        for specification in list(self._held):
            self._let_go(specification)

    def _let_go(self, specification: Specification) -> None:
        self._held.pop(specification)[0].close()

    def require_space(self, specifications: Collection[Specification]) -> None:
        """Raise `DiskTooSmall` if a run that needs these, one at a time, could not have them all."""
        wanted = {one for specification in specifications for one in (specification, specification.weights) if one}
        for specification in sorted(wanted, key=lambda s: (-s.disk_bytes, s.name)):
            missing = _space_for(specification) - self._free_bytes() - self._removable_bytes()
            if missing > 0 and not (self.folder / specification.name).exists():
                raise DiskTooSmall(
                    f"{specification.name} needs {decimal_size(_space_for(specification))} of disk, "
                    f"{decimal_size(self._free_bytes())} are free under --checkpoint-dir; "
                    f"free {decimal_size(missing)} more, or name a folder on another disk"
                )

    def _hold(self, specification: Specification) -> tuple[ExitStack, Checkpoint]:
        """Lock the checkpoint against removal, made or mended first where it has to be."""
        folder = self.folder / specification.name
        made = announced = False
        weights = self.get(specification.weights) if specification.weights else None
        read = weights.files if weights else specification.in_place.files if specification.in_place else ()
        with ExitStack() as stack:
            lock = stack.enter_context(self._lock_file(specification.name))
            while True:
                wait_for(lock, fcntl.LOCK_SH, partial(self._say_waiting, lock))
                # Taken first, so that a change during the check is noticed.
                found = file_identities(folder, read)
                # Between the two locks another run short of disk may have removed what was just made.
                if (made and folder.exists()) or misfit(specification, folder) is None:
                    return stack.pop_all(), Checkpoint(
                        specification, folder, found, weights.folder if weights else None
                    )
                # Another run may have made it by now, and hold it until it ends: ranks would wait for each other.
                if not lock_at_once(lock, fcntl.LOCK_EX):
                    if not announced:
                        self._say_waiting(lock)
                    announced = True
                    time.sleep(RETRY_SECONDS)
                    continue
                if reason := misfit(specification, folder):
                    if folder.exists():
                        self._say(f"{specification.name}: {reason}; it is made again")
                        shutil.rmtree(folder)
                    self._make(specification, folder)
                made = True

    def _make(self, specification: Specification, folder: Path) -> None:
        """Make a checkpoint whose exclusive lock is held."""
        takes, free = specification.making_bytes, psutil.virtual_memory().available
        with written_aside(folder) as unfinished:
            if takes > free:
                raise MemoryTooSmall(
                    f"making its checkpoint takes {decimal_size(takes)} of memory, and {decimal_size(free)} are free; "
                    f"add --plan to compute its peaks"
                )
            self._make_room(specification)
            work_bytes = takes * (1 if specification.in_place else 2)
            with self._show_progress(f"making {specification.name}", work_bytes) as progress:
                make(specification, unfinished, progress)

    def _make_room(self, specification: Specification) -> None:
        """Remove checkpoints, largest first, until this one fits: this run's own earlier ones, and idle ones."""
        self.require_space([specification])
        for folder in sorted(self._folders(), key=_bytes_below, reverse=True):
            if self._free_bytes() >= _space_for(specification):
                return
            if folder.name in _names(specification):
                continue  # It has the weights of what is made.
            for held in [held for held in self._held if folder.name in _names(held)]:
                self._let_go(held)
            with self._lock_file(_lock_name(folder)) as lock:
                if lock_at_once(lock, fcntl.LOCK_EX):
                    self._say(f"{folder.name}: removed, the disk is short")
                    shutil.rmtree(folder)

    def _removable_bytes(self) -> int:
        total = 0
        for folder in self._folders():
            with self._lock_file(_lock_name(folder)) as lock:
                if any(held.name == folder.name for held in self._held) or lock_at_once(lock, fcntl.LOCK_EX):
                    total += _bytes_below(folder)
        return total

    def _folders(self) -> list[Path]:
        """Return all checkpoint folders, unfinished ones of killed runs included."""
        return [path for name in NAMES for path in self.folder.glob(name) if path.is_dir()]

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self.folder).free

    def _lock_file(self, name: str) -> IO[bytes]:
        return (self.folder / f"{name}.lock").open("ab")

    def _say_waiting(self, lock: IO[bytes]) -> None:
        self._say(f"{Path(lock.name).stem}: waiting for another run that makes or uses it")


def _names(specification: Specification) -> set[str]:
    """Return the name of a checkpoint, and that of the one that has its weights."""
    return {one.name for one in (specification, specification.weights) if one}


def _space_for(specification: Specification) -> int:
    return specification.disk_bytes + min(RESERVE_BYTES, specification.disk_bytes)


def _lock_name(folder: Path) -> str:
    return folder.name.removesuffix(UNFINISHED)


def _bytes_below(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
