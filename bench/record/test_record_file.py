"""Files that no reader of runs may wait for, follow, or take into memory."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.history.run_files import read_runs, write_whole
from bench.plugin.storage import Storage
from bench.plugin.test_storage import RUN, storage
from bench.record.record_file import MOST_BYTES, Unreadable, content_of, json_of


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(50 * 10**9)


def outside(path: Path) -> None:
    elsewhere = path.parents[1] / "elsewhere.json"
    elsewhere.write_text(json.dumps(RUN))
    path.symlink_to(elsewhere)


def listens(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        there = os.open(path.parent, os.O_RDONLY)
        one.bind(f"/proc/self/fd/{there}/{path.name}")
        os.close(there)


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a FIFO": (os.mkfifo, "is no file but a FIFO"),
    "a folder": (Path.mkdir, "is no file but a folder"),
    "a socket": (listens, "is no file but a socket"),
    "a link to a device": (lambda path: path.symlink_to("/dev/zero"), "is a link that leads out of the folder"),
    "a link to a file elsewhere": (outside, "is a link that leads out of the folder"),
    "a link to nothing": (lambda path: path.symlink_to("gone.json"), "cannot be read: No such file or directory"),
    "a link to itself": (lambda path: path.symlink_to(path.name), "cannot be read"),
    "a sparse file": (sparse, f"has 50,000,000,000 bytes, and a run at most {MOST_BYTES:,}"),
    "deep JSON": (lambda path: path.write_text("[" * 10**5), "cannot be read: its JSON nests too deep"),
    "a long integer": (lambda path: path.write_text("1" * 5000), "cannot be read: Exceeds the limit"),
    "a great integer": (
        lambda path: path.write_text(json.dumps(RUN).replace('"2026"', "1" * 400)),
        "is damaged: datetime is an integer of 1,326 bits, and not a text",
    ),
    "NaN": (lambda path: path.write_text("[NaN]"), "cannot be read: NaN is no number in JSON"),
    "half a character": (lambda path: path.write_text('"\\ud800"'), "cannot be read: 'utf-8' codec can't encode"),
    "empty lists": (
        lambda path: path.write_text("[" + "[]," * 10**6 + "[]]"),
        "would take 151 MiB of memory, and a run of its size at most 78",
    ),
    "no UTF-8": (lambda path: path.write_bytes(b'"\xed\xa0\x80"'), "cannot be read: 'utf-8' codec can't decode"),
    "zeros": (lambda path: path.write_bytes(bytes(10**6)), "cannot be read: Expecting value"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_run_is_passed_over_by_name_and_others_are_read(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "results"
    storage(folder).save(RUN, "sound")
    make, why = HOSTILE[name]
    make(folder / "0002_hostile.json")
    runs, passed_over = read_runs(folder)
    assert [run.number for run in runs] == ["0001"]
    [line] = passed_over
    assert line.startswith(f"0002_hostile.json {why}")
    assert line.isprintable()
    opened: Storage = storage(folder)
    opened.baselines = (folder / "0002_hostile.json",)
    if why.startswith(("cannot", "is no file", "would")):
        assert list(opened.load()) == []


@pytest.mark.parametrize("content", ["{", json.dumps(RUN)])
def test_a_name_from_a_file_system_is_told_in_a_line(tmp_path: Path, content: str) -> None:
    for name in ("0001_\x1b[31m\r\n", "0001_\n", "0002_\x1b[31m"):
        (tmp_path / f"{name}.json").write_text(content)
    (tmp_path / "0003_\N{SNOWMAN}.json").write_text(json.dumps(RUN))
    found, passed_over = read_runs(tmp_path)
    assert [run.number for run in found] == ["0003"]
    assert passed_over == [
        rf"{name}.json has control characters in its name: rename it"
        for name in (r"0001_\n", r"0001_\x1b[31m\r\n", r"0002_\x1b[31m")
    ]


def test_a_folder_that_is_linked_into_itself_is_read_once(tmp_path: Path) -> None:
    storage(tmp_path).save(RUN, "sound")
    (tmp_path / "again").symlink_to(tmp_path / "machine")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert [len(found) for found in read_runs(tmp_path)] == [1, 0]


def test_the_largest_file_is_read_and_one_that_is_larger_is_not(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 10)
    assert content_of(file, most=10) == b"x" * 10
    with pytest.raises(Unreadable, match="has 10 bytes, and a run at most 9"):
        content_of(file, most=9)


def test_a_character_in_two_halves_is_one(tmp_path: Path) -> None:
    assert json_of(b'["\\ud83d\\ude00", "\\\\ud800"]') == ["\N{GRINNING FACE}", "\\ud800"]


def test_what_is_in_the_way_of_a_file_is_not_written_to(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("other")
    for make in (os.mkfifo, lambda path: path.symlink_to(other)):
        make(tmp_path / "file.unfinished")
        write_whole(tmp_path / "file", b"content")
        assert (tmp_path / "file").read_bytes() == b"content"
    assert other.read_text() == "other"


def test_a_number_that_nobody_reaches_is_not_counted_on_from(tmp_path: Path) -> None:
    storage(tmp_path).save(RUN, "sound")
    (tmp_path / "machine" / f"{'9' * 200}_x.json").write_text("{")
    storage(tmp_path).save(RUN, "next")
    assert (tmp_path / "machine" / "0002_next.json").exists()
