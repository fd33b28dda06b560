"""Adapter of pytest-benchmark's storage to the suite's run files."""

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytest_benchmark.storage.file import FileStorage

from bench.history.run_files import NotSaved, in_text, read_runs, save_run
from bench.history.runs import NAME, Run
from bench.history.schema import PASSED, baseline
from bench.record.record_file import Unreadable, content_of

# Reasons why nothing can be written to a folder, by the number of the error.
CLOSED = {
    errno.EROFS: "is read-only",
    errno.EACCES: "may not be written to",
    errno.EPERM: "may not be written to",
    errno.ENOTDIR: "is below a file",
    errno.EEXIST: "is a file",
}

# Of a number, at least.
DIGITS = 4


class Storage(FileStorage):
    """pytest-benchmark's storage, which writes in place, and gives two runs at once the same number.

    `outcome` is that of the run that is to be saved, `baselines` are the files that pytest-benchmark's table shows.
    `passed_over` has a line for each file that is named like a run and is none; `unsaved` is the reason why a run is
    not on the disk.
    """

    def __init__(self, storage: FileStorage) -> None:
        super().__init__(storage.path, storage.logger, storage.default_machine_id)
        self.outcome = PASSED
        self.baselines: tuple[Path, ...] = ()
        self.passed_over: list[str] = []
        self.saved: Path | None = None
        self.unsaved: str | None = None

    def runs(self) -> list[Run]:
        """Read every recorded run, oldest first, those of other systems and Pythons included."""
        runs, self.passed_over = read_runs(self.path)
        return runs

    def files(self, name: str) -> list[Path]:
        """List the files of passing runs that `--benchmark-compare=NAME` means."""
        try:
            found = [(file, NAME.fullmatch(file.name)) for file in self.query(name)]
        except (ValueError, NotImplementedError):
            # A path of a file that is not there.
            return []
        # A whole number is not the beginning of another.
        whole = name if name.isdecimal() and len(name) >= DIGITS else None
        return [file for file, match in found if not match or (not match["mark"] and whole in {None, match["number"]})]

    def load(self, *_: str) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Read the runs that pytest-benchmark's table shows beside this one."""
        for file in self.baselines:
            # A file that was damaged since the history was read is missing in the table, and no more.
            with suppress(Unreadable):
                content = baseline(content_of(file))
                yield file.relative_to(self.path) if file.is_relative_to(self.path) else file, content

    def save(self, output_json: dict[str, Any], save: str) -> None:
        """Save a run; where that fails, give the reason in `unsaved`: an error would end pytest before its tables."""
        mark = "" if self.outcome == PASSED else f"{self.outcome}-"
        try:
            self.saved = save_run(self.get("."), mark, save, in_text(output_json))
        except NotSaved as failure:
            closed = CLOSED.get(failure.error.errno or 0)
            self.unsaved = (
                f"{os.path.relpath(self.path)}/ {closed}: this run is not recorded; name another folder with "
                "--benchmark-storage"
                if closed
                else f"this run is not recorded: {failure.file.name} cannot be written: {failure.error.strerror}"
            )
        else:
            self.logger.info(f"Saved benchmark data in: {self.saved}")
