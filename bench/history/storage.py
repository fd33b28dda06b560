"""Where runs are kept: pytest-benchmark's files, but each is there as a whole or not at all."""

import errno
import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pytest_benchmark.storage.file import FileStorage
from pytest_benchmark.utils import safe_dumps

from bench.history.index import Index
from bench.history.runs import NAME, Run
from bench.history.schema import PASSED, baseline
from bench.record.record_file import Unreadable, content_of
from model.checkpoints.cache import cache_folder
from model.disk import UNFINISHED, lock_at_once, written_aside
from model.printable import printable

# Why nothing can be written to a folder, by the number of the error.
CLOSED = {
    errno.EROFS: "is read-only",
    errno.EACCES: "may not be written to",
    errno.EPERM: "may not be written to",
    errno.ENOTDIR: "is below a file",
    errno.EEXIST: "is a file",
}

# Of a number, at least.
DIGITS = 4
# And at most, of a number that is counted on from.
MOST_DIGITS = 9

# How long a run waits to be saved while another process saves there, which takes less than a second.
MOST_LOCKED_SECONDS = 10.0

# A list of numbers as it is written, one a line. There is no such text in a string: JSON escapes its newlines.
_NUMBERS = re.compile(r"\[\n\s*([-+.0-9eE,\s]+?)\s*\]")


def in_text(output_json: dict[str, Any]) -> bytes:
    """A run as it is written to a file: to be read by people, so lists of numbers are a line each."""
    text = safe_dumps(output_json, ensure_ascii=True, indent=4)
    return _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text).encode()


def write_whole(file: Path, content: bytes) -> None:
    """Write a file under another name, then give it its own: whoever dies meanwhile leaves what was there before.

    Raises `OSError`, and leaves nothing, where it cannot be.
    """
    # pytest-benchmark does not look at the other name.
    with written_aside(file) as unfinished, unfinished.open("wb") as stream:
        stream.write(content)


def read_runs(folder: Path) -> tuple[list[Run], list[str]]:
    """Every run in a folder and those in it, oldest first; and of what is named like a run and is none, why."""
    found, passed_over = [], []
    index = Index(folder, cache_folder())
    for file in _files(folder):
        try:
            found.append(index.run(file))
        except Unreadable as error:
            passed_over.append(f"{printable(file.relative_to(folder))} {error}")
    if content := index.renewed():
        # It saves time the next time, and nothing else: not worth a wait for who writes one.
        with suppress(OSError):
            index.file.parent.mkdir(parents=True, exist_ok=True)
            with _locked(index.file.parent, 0):
                write_whole(index.file, content)
    # By number where the clock says nothing.
    return sorted(found, key=lambda run: run.moment), passed_over


def _files(folder: Path) -> list[Path]:
    """Whatever is named like a run, by number."""
    places = {place.resolve(): place for place in (*folder.glob("*/"), folder)}
    found = [
        (int(match["number"]), file)
        for place in places.values()
        for file in place.glob("*_*.json")
        if (match := NAME.fullmatch(file.name))
    ]
    return [file for _, file in sorted(found)]


class Storage(FileStorage):
    """pytest-benchmark's storage, which writes in place, and gives two runs at once the same number.

    `outcome` is that of the run that is to be saved, `baselines` are those that pytest-benchmark's table shows.
    `passed_over` says of every file that looks like a run and is none why, `unsaved` why a run is not on the disk.
    """

    def __init__(self, storage: FileStorage) -> None:
        super().__init__(storage.path, storage.logger, storage.default_machine_id)
        self.outcome = PASSED
        self.baselines: tuple[Path, ...] = ()
        self.passed_over: list[str] = []
        self.saved: Path | None = None
        self.unsaved: str | None = None

    def runs(self) -> list[Run]:
        """Every recorded run, oldest first, those of other systems and Pythons included."""
        runs, self.passed_over = read_runs(self.path)
        return runs

    def files(self, name: str) -> list[Path]:
        """The files of passing runs that `--benchmark-compare=NAME` means."""
        try:
            found = [(file, NAME.fullmatch(file.name)) for file in self.query(name)]
        except (ValueError, NotImplementedError):
            # A path of a file that is not there.
            return []
        # A whole number is not the beginning of another.
        whole = name if name.isdecimal() and len(name) >= DIGITS else None
        return [file for file, match in found if not match or (not match["mark"] and whole in {None, match["number"]})]

    def load(self, *_: str) -> Iterator[tuple[Path, dict[str, Any]]]:
        """What pytest-benchmark's table is to show beside this run."""
        for file in self.baselines:
            # What was damaged since the history was read is missing in the table, and no more.
            with suppress(Unreadable):
                shown = baseline(content_of(file))
                yield file.relative_to(self.path) if file.is_relative_to(self.path) else file, shown

    def save(self, output_json: dict[str, Any], save: str) -> None:
        """Write a run to a new file under the next number; where that fails, leave nothing, and say why in `unsaved`.

        To raise would end pytest before it has shown what was measured.
        """
        mark = "" if self.outcome == PASSED else f"{self.outcome}-"
        folder = self.get(".")
        file = folder / f"{mark}{save}.json"
        try:
            # pytest-benchmark has tried, and told nobody why it could not.
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder, MOST_LOCKED_SECONDS):
                _remove_unfinished(folder)
                file = folder / f"{mark}{self._next_number():04}_{save}.json"
                write_whole(file, in_text(output_json))
        except OSError as error:
            closed = CLOSED.get(error.errno or 0)
            self.unsaved = (
                f"{os.path.relpath(self.path)}/ {closed}: this run is not recorded; name another folder with "
                "--benchmark-storage"
                if closed
                else f"this run is not recorded: {file.name} cannot be written: {error.strerror}"
            )
        else:
            self.saved = file
            self.logger.info(f"Saved benchmark data in: {file}")

    def _next_number(self) -> int:
        numbers = [int(match["number"]) for file in self.get(".").iterdir() if (match := NAME.fullmatch(file.name))]
        # A name with more digits than runs need is no reason to give numbers that are longer still.
        return max((number for number in numbers if number < 10**MOST_DIGITS - 1), default=0) + 1


def _remove_unfinished(folder: Path) -> None:
    """Remove what killed runs left in a folder that is locked: nobody else is writing a run there."""
    for left in folder.glob(f"*.json{UNFINISHED}"):
        if NAME.fullmatch(left.name.removesuffix(UNFINISHED)):
            with suppress(OSError):
                left.unlink()


@contextmanager
def _locked(folder: Path, most_seconds: float) -> Iterator[None]:
    """Alone among all who save there; a process that dies lets go. Raises `TimeoutError` after so long a wait."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        end = time.monotonic() + most_seconds
        while not lock_at_once(descriptor, fcntl.LOCK_EX):
            if time.monotonic() >= end:
                held = f"another process has held the lock of the folder for {most_seconds:g} s: end it, and run again"
                raise TimeoutError(errno.ETIMEDOUT, held)
            time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)
