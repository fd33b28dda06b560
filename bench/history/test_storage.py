import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from pytest_benchmark.storage.file import FileStorage

from bench.history.storage import UNFINISHED, WholeFiles

RUN = {"benchmarks": [], "machine_info": {"torch": "2.13.0"}}


class Told:
    """Stands in for pytest-benchmark's logger, which wants a whole pytest."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def info(self, _: str) -> None:
        pass

    def warning(self, text: str) -> None:
        self.warnings.append(text)


def storage(folder: Path, kind: Any = WholeFiles) -> Any:
    return kind(folder, Told(), "machine")


def runs(folder: Path) -> list[str]:
    """The runs that are read back; nothing is passed over."""
    opened = storage(folder)
    found = [path.name for path, _ in opened.load()]
    assert opened.logger.warnings == []
    return found


def test_runs_are_numbered_and_read_back(tmp_path: Path) -> None:
    for name in ("first", "second"):
        storage(tmp_path).save(RUN, name)
    assert runs(tmp_path) == ["0001_first.json", "0002_second.json"]
    assert next(data for _, data in storage(tmp_path).load()) == RUN


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_after_half(stream: Any, content: bytes) -> None:
    stream.write(content[: len(content) // 2])
    stream.flush()
    die()


def save_and_die(folder: Path, kind: type[FileStorage], moment: str) -> None:
    """`moment`: the call that a killed process does not come back from."""
    opened = storage(folder, kind)
    if moment == "write":
        open_file = Path.open

        def open_fatally(path: Path, mode: str) -> Any:
            stream = open_file(path, mode)
            if "b" in mode:

                class Fatal:
                    def __enter__(self) -> "Fatal":
                        return self

                    def __exit__(self, *_: object) -> None:
                        stream.close()

                    def write(self, content: bytes) -> None:
                        die_after_half(stream, content)

                return Fatal()
            return stream

        with patch.object(Path, "open", open_fatally):
            opened.save(RUN, "killed")
    with patch.object(*{"fsync": (os, "fsync"), "rename": (Path, "rename")}[moment], die):
        opened.save(RUN, "killed")


def killed_while_saving(folder: Path, kind: type[FileStorage], moment: str) -> None:
    process = multiprocessing.get_context("spawn").Process(target=save_and_die, args=(folder, kind, moment))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("moment", ["write", "fsync", "rename"])
def test_a_run_that_is_killed_while_it_saves_leaves_the_others_whole(tmp_path: Path, moment: str) -> None:
    storage(tmp_path).save(RUN, "before")
    killed_while_saving(tmp_path, WholeFiles, moment)
    assert runs(tmp_path) == ["0001_before.json"]
    assert [path.name for path in tmp_path.rglob(f"*{UNFINISHED}")] == [f"0002_killed.json{UNFINISHED}"]
    storage(tmp_path).save(RUN, "after")
    assert runs(tmp_path) == ["0001_before.json", "0002_after.json"]


def test_pytest_benchmarks_own_storage_would_leave_half_a_file(tmp_path: Path) -> None:
    """What the test above is there for: without whole files it fails."""
    killed_while_saving(tmp_path, FileStorage, "write")
    opened = storage(tmp_path)
    assert list(opened.load()) == []
    assert "Failed to load" in opened.logger.warnings[0]


@pytest.mark.parametrize("failing", ["fsync", "rename"])
def test_a_run_that_cannot_be_saved_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    storage(tmp_path).save(RUN, "before")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*{"fsync": (os, "fsync"), "rename": (Path, "rename")}[failing], fail)
    full = storage(tmp_path)
    full.save(RUN, "after")
    assert full.unsaved == "this run is not recorded: 0002_after.json cannot be written: No space left on device"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["0001_before.json"]
