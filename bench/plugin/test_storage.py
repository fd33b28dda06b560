import errno
import fcntl
import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pytest_benchmark.storage.file import FileStorage

from bench.history.run_files import in_text, write_whole
from bench.history.runs import read_run
from bench.history.schema import FAILED
from bench.plugin.storage import Storage
from bench.record.record import FIELDS, Record
from bench.selftest.small_suite import STATS
from model.disk import UNFINISHED

RUN = {"benchmarks": [], "machine_info": {"torch": "2.13.0"}, "commit_info": {"id": "c0ffee"}, "datetime": "2026"}


class Told:
    """Stands in for pytest-benchmark's logger, which wants a whole pytest."""

    def info(self, _: str) -> None:
        pass


def storage(folder: Path, kind: Any = Storage) -> Any:
    opened = FileStorage(folder, Told(), "machine")
    return Storage(opened) if kind is Storage else opened


def runs(folder: Path) -> list[str]:
    """The runs that are read back; nothing is passed over."""
    opened = storage(folder)
    found = [run.file.name for run in opened.runs()]
    assert opened.passed_over == []
    return found


def test_runs_are_numbered_and_read_back(tmp_path: Path) -> None:
    for name in ("first", "second"):
        storage(tmp_path).save(RUN, name)
    assert runs(tmp_path) == ["0001_first.json", "0002_second.json"]
    opened = storage(tmp_path)
    opened.baselines = (tmp_path / "machine" / "0001_first.json",)
    assert list(opened.load()) == [(Path("machine", "0001_first.json"), {"benchmarks": []})]


def test_a_failed_run_takes_a_number_and_a_name_that_nobody_compares_with(tmp_path: Path) -> None:
    storage(tmp_path).save(RUN, "first")
    failed = storage(tmp_path)
    failed.outcome = FAILED
    failed.save(RUN, "second")
    storage(tmp_path).save(RUN, "third")
    assert runs(tmp_path) == ["0001_first.json", "failed-0002_second.json", "0003_third.json"]
    assert [path.name for path, _ in storage(tmp_path, FileStorage).load()] == ["0001_first.json", "0003_third.json"]
    assert failed.files("0002") == []
    assert failed.files("no/such/run.json") == failed.files("/0001") == []
    assert failed.files("failed-0002") == []


def test_runs_of_all_pythons_are_in_the_order_of_their_time(tmp_path: Path) -> None:
    for folder, name, year in (("machine", "0001_a", 2025), ("machine", "0002_c", 2027), ("another", "0007_b", 2026)):
        (tmp_path / folder).mkdir(exist_ok=True)
        write_whole(tmp_path / folder / f"{name}.json", json.dumps(RUN | {"datetime": str(year)}).encode())
    assert runs(tmp_path) == ["0001_a.json", "0007_b.json", "0002_c.json"]


def test_numbers_go_on_after_four_digits(tmp_path: Path) -> None:
    (tmp_path / "machine").mkdir()
    for number in (999, 9999):
        (tmp_path / "machine" / f"{number:04}_run.json").write_text(json.dumps(RUN))
    storage(tmp_path).save(RUN, "run")
    assert runs(tmp_path) == ["0999_run.json", "9999_run.json", "10000_run.json"]
    assert [file.name for file in storage(tmp_path).files("10000")] == ["10000_run.json"]
    assert storage(tmp_path).files("1000") == []


def save_some(folder: Path, name: str) -> None:
    for index in range(10):
        storage(folder).save(RUN, f"{name}-{index}")


def test_runs_at_the_same_time_get_different_numbers(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=save_some, args=(tmp_path, str(number))) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [int(name[:4]) for name in runs(tmp_path)] == list(range(1, 41))


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
    killed_while_saving(tmp_path, Storage, moment)
    assert runs(tmp_path) == ["0001_before.json"]
    assert [path.name for path in tmp_path.rglob(f"*{UNFINISHED}")] == [f"0002_killed.json{UNFINISHED}"]
    (tmp_path / "machine" / f"notes{UNFINISHED}").touch()
    storage(tmp_path).save(RUN, "after")
    assert runs(tmp_path) == ["0001_before.json", "0002_after.json"]
    assert [path.name for path in tmp_path.rglob(f"*{UNFINISHED}")] == [f"notes{UNFINISHED}"]


def test_pytest_benchmarks_own_storage_would_leave_half_a_file(tmp_path: Path) -> None:
    """Fault of the test above: without whole files it fails."""
    killed_while_saving(tmp_path, FileStorage, "write")
    mine = storage(tmp_path)
    assert mine.runs() == []
    assert mine.passed_over[0].startswith("machine/0001_killed.json cannot be read: ")


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


def test_a_process_that_is_stopped_while_it_saves_keeps_no_run_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.history.run_files.MOST_LOCKED_SECONDS", 0.05)
    (tmp_path / "machine").mkdir()
    holder = os.open(tmp_path / "machine", os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    waiting = storage(tmp_path)
    signal.alarm(10)  # Without an end to the wait this ends the tests.
    waiting.save(RUN, "run")
    signal.alarm(0)
    os.close(holder)
    assert waiting.unsaved == (
        "this run is not recorded: run.json cannot be written: another process has held the lock of the folder for "
        "0.05 s: end it, and run again"
    )
    waiting.save(RUN, "run")
    assert runs(tmp_path) == ["0001_run.json"]


@pytest.mark.parametrize(
    ("number", "why"), [(errno.EROFS, "is read-only"), (errno.EACCES, "may not be written to"), (0, "is below a file")]
)
@pytest.mark.parametrize("is_there", [True, False])
def test_a_folder_that_cannot_be_written_to_is_said_to_be_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, why: str, is_there: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results"
    if number == 0:
        folder = tmp_path / "file" / "results"
        folder.parent.touch()
    elif is_there:
        (folder / "machine").mkdir(parents=True)

    def refuse(path: Path, *_: object, **__: object) -> None:
        if not path.is_dir():
            raise OSError(number, os.strerror(number))

    opened = storage(folder)
    if number:
        monkeypatch.setattr(Path, "mkdir", refuse)
        monkeypatch.setattr(Path, "open", lambda path, *_: refuse(path))
    opened.save(RUN, "run")
    shown = f"{folder.relative_to(tmp_path)}/ {why}"
    assert opened.unsaved == f"{shown}: this run is not recorded; name another folder with --benchmark-storage"


NUMBERS = st.lists(st.integers() | st.floats(allow_nan=False, allow_infinity=False))
VALUES = st.recursive(
    st.none() | st.booleans() | st.text() | st.sampled_from(("[\n 1,\n 2]", "1,\n[\n2\n]", "[1,  2]")) | NUMBERS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), VALUES))
@example({"[\n 1,\n 2]": ["[\n 1,\n 2]", "[1,  2]", 1, [-1, 2.5e-07, []], [[]], {"a": [True]}]})
def test_what_is_written_is_what_is_read(content: dict[str, Any]) -> None:
    assert json.loads(in_text(content)) == content


def test_lists_of_numbers_are_a_line_each() -> None:
    text = in_text({"seconds": [0.1, 2e-07, -3], "names": ["a", "b"], "none": [], "pairs": [[1], [2, 3]]}).decode()
    assert text.splitlines() == [
        "{",
        '    "seconds": [0.1, 2e-07, -3],',
        '    "names": [',
        '        "a",',
        '        "b"',
        "    ],",
        '    "none": [],',
        '    "pairs": [',
        "        [1],",
        "        [2, 3]",
        "    ]",
        "}",
    ]


def test_a_history_does_not_hold_what_is_looked_at_in_one_run_only(tmp_path: Path) -> None:
    """A thousand runs with all their points would take a gigabyte."""
    record = Record().as_json() | {"dtype": "float32", "cache": "warm", "load_seconds": 1.0}
    record |= {"timeline": {"moments": {}}, "alive_at_peak": {"host_private_peak_bytes": []}, "fate": "died"}
    benchmark = {"fullname": "test_x[y]", "extra_info": record, "stats": STATS}
    run = {"benchmarks": [benchmark], "machine_info": {}, "commit_info": {"id": "c"}, "datetime": "2026"}
    (tmp_path / "0001_run.json").write_text(json.dumps(run))
    [read] = read_run(tmp_path / "0001_run.json").records.values()
    kept = {name for name, field in FIELDS.items() if field.lasts}
    assert read.measured() == {name: record[name] for name in kept if record[name] is not None}
