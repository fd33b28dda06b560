"""The index of the runs: what is read with it is what is read without it, whatever happens to either."""

import fcntl
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from bench.history import index
from bench.history.run_files import read_runs
from bench.history.runs import Run, read_run
from bench.record import record_file
from bench.selftest.recorded_run import Runs


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Three runs, whose index is worth it, in a cache of their own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "MOST_UNINDEXED_BYTES", 1)
    (tmp_path / "runs").mkdir()
    written = Runs(tmp_path / "runs")
    for number in (1, 2, 3):
        written.write(number)
    return written


def plain(run: Run) -> dict[str, Any]:
    values = {name: getattr(run, name) for name in Run.__dataclass_fields__}
    return values | {"records": {key: record.measured() for key, record in run.records.items()}}


def read(runs: Runs) -> list[dict[str, Any]]:
    found, passed_over = read_runs(runs.folder)
    assert passed_over == []
    return [plain(run) for run in found]


def index_file(runs: Runs) -> Path:
    [file] = (runs.folder.parent / "cache").rglob("*.json")
    return file


def files_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose content is read from now on."""
    opened: list[str] = []
    content_of = record_file.content_of

    def tell(file: Path, *more: Any, **options: Any) -> bytes:
        opened.append(file.name)
        return content_of(file, *more, **options)

    monkeypatch.setattr(index, "content_of", tell)
    return opened


def test_a_file_is_read_again_only_where_it_is_another_one(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [plain(read_run(file)) for file in sorted(runs.folder.iterdir())]
    assert read(runs) == whole
    opened = files_read(monkeypatch)
    assert read(runs) == whole
    assert opened == [index_file(runs).name]
    # The size and the time of the last change of a file may be as they were.
    file = runs.folder / "failed-0002_run.json"
    before = file.stat()
    file.write_text(file.read_text().replace("c>ffee", "d>ffee"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert [run["commit"] for run in read(runs)] == ["0000001<c>ffee", "0000002<d>ffee", "0000003<c>ffee"]
    assert opened.count(file.name) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[" * 100_000,
        lambda text: text.replace('"version":"', '"version":"other '),
        lambda text: text.replace('"state_bytes":1000000000', '"state_bytes":"1000000000"'),
        lambda text: text.replace('"datetime":"2026', '"datetime":["2026"],"x":"'),
        lambda text: json.dumps({**json.loads(text), "runs": dict.fromkeys(json.loads(text)["runs"], 1)}),
    ],
)
def test_an_index_that_is_damaged_or_of_another_version_is_made_again(runs: Runs, damage: Any) -> None:
    whole, sound = read(runs), index_file(runs).read_text()
    index_file(runs).write_text(damage(sound))
    assert index_file(runs).read_text() != sound
    assert read(runs) == whole
    assert index_file(runs).read_text() == sound


def test_without_a_place_for_an_index_the_files_are_read(runs: Runs) -> None:
    whole = read(runs)
    index_file(runs).unlink()
    (runs.folder.parent / "cache" / "weight-loading" / "history").rmdir()
    (runs.folder.parent / "cache" / "weight-loading" / "history").write_text("no folder")
    assert read(runs) == whole


def test_an_index_that_another_process_writes_is_not_waited_for(runs: Runs) -> None:
    whole, sound = read(runs), index_file(runs).read_text()
    index_file(runs).write_text("")
    holder = os.open(index_file(runs).parent, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    signal.alarm(10)  # A wait would have no end: this ends the tests.
    assert read(runs) == whole
    signal.alarm(0)
    assert index_file(runs).read_text() == ""
    os.close(holder)
    assert read(runs) == whole
    assert index_file(runs).read_text() == sound


def test_few_runs_have_no_index(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(runs.folder.parent / "cache"))
    assert len(read(runs)) == 3
    assert not list((runs.folder.parent / "cache").rglob("*"))


def test_what_is_gone_leaves_the_index(runs: Runs) -> None:
    read(runs)
    (runs.folder / "failed-0002_run.json").unlink()
    runs.write(4)
    assert len(read(runs)) == 3
    assert sorted(Path(name).name for name in json.loads(index_file(runs).read_text())["runs"]) == [
        f"failed-000{number}_run.json" for number in (1, 3, 4)
    ]
