"""The files of recorded runs on a disk: each is there as a whole or not at all."""

import errno
import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.history.index import Index
from bench.history.runs import NAME, Run
from bench.record.record_file import Unreadable
from model.checkpoints.cache import cache_folder
from model.disk import UNFINISHED, lock_at_once, written_aside
from model.printable import printable

# Of the number of a run, at most, where it is counted on from.
MOST_DIGITS = 9

# How long a run waits to be saved while another process saves there, which takes less than a second.
MOST_LOCKED_SECONDS = 10.0

# A list of numbers as it is written, one a line. There is no such text in a string: JSON escapes its newlines.
_NUMBERS = re.compile(r"\[\n\s*([-+.0-9eE,\s]+?)\s*\]")


class NotSaved(Exception):
    """A run is not on the disk: `file` is the file that would have it, `error` the reason."""

    def __init__(self, file: Path, error: OSError) -> None:
        super().__init__(file.name, error.strerror)
        self.file, self.error = file, error


def in_text(output_json: dict[str, Any]) -> bytes:
    """Format a run for its file. People read it, so each list of numbers is one line."""
    text = json.dumps(output_json, ensure_ascii=True, indent=4, default=_unserializable)
    return _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text).encode()


def _unserializable(value: object) -> str:
    # As pytest-benchmark writes what JSON has no form for.
    return f"UNSERIALIZABLE[{value!r}]"


def write_whole(file: Path, content: bytes) -> None:
    """Write a file under another name, then give it its own: a process that dies meanwhile leaves the old file.

    Raises `OSError`, and leaves nothing, where the file cannot be written.
    """
    # pytest-benchmark does not look at the other name.
    with written_aside(file) as unfinished, unfinished.open("wb") as stream:
        stream.write(content)


def read_runs(folder: Path) -> tuple[list[Run], list[str]]:
    """Read the runs in a folder and its folders, oldest first; and why other files with such names are none."""
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
    """List the files that are named like runs, by number."""
    places = {place.resolve(): place for place in (*folder.glob("*/"), folder)}
    found = [
        (int(match["number"]), file)
        for place in places.values()
        for file in place.glob("*_*.json")
        if (match := NAME.fullmatch(file.name))
    ]
    return [file for _, file in sorted(found)]


def save_run(folder: Path, mark: str, name: str, content: bytes) -> Path:
    """Write a run to a new file under the next number, and return the file.

    `mark` stands before the number of a run that did not pass. Raises `NotSaved`, and leaves nothing, where the
    file cannot be written.
    """
    file = folder / f"{mark}{name}.json"
    try:
        # pytest-benchmark has tried, and reports no reason where it could not.
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder, MOST_LOCKED_SECONDS):
            _remove_unfinished(folder)
            file = folder / f"{mark}{_next_number(folder):04}_{name}.json"
            write_whole(file, content)
    except OSError as error:
        raise NotSaved(file, error) from error
    return file


def _next_number(folder: Path) -> int:
    numbers = [int(match["number"]) for file in folder.iterdir() if (match := NAME.fullmatch(file.name))]
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
    """Hold the lock of a folder of runs, which ends with the process. Raises `TimeoutError` after so long a wait."""
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
