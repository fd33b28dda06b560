import fcntl
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from model.checkpoints import cache as cache_module
from model.checkpoints.cache import CheckpointCache, DiskTooSmall, MemoryTooSmall
from model.checkpoints.file_identity import file_identities
from model.checkpoints.manifest import misfit
from model.checkpoints.specification import Specification
from model.gpt2 import REHEARSAL

ONE = Specification(REHEARSAL, "float32", "torch")
OTHER = Specification(REHEARSAL, "float16", "torch")

Free = Callable[[int], None]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path: Path, said: list[str]) -> Iterator[CheckpointCache]:
    with closing(CheckpointCache(tmp_path, said.append)) as opened:
        yield opened


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Free:
    """Gives the disk this many bytes in all, with the checkpoints on it."""

    def disk_of(capacity: int) -> None:
        def usage(_: Path) -> SimpleNamespace:
            used = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
            return SimpleNamespace(free=capacity - used)

        monkeypatch.setattr(cache_module, "RESERVE_BYTES", 0)
        monkeypatch.setattr(shutil, "disk_usage", usage)

    return disk_of


def test_a_checkpoint_is_made_once(cache: CheckpointCache, tmp_path: Path, said: list[str]) -> None:
    checkpoint = cache.get(ONE)
    assert misfit(ONE, checkpoint.folder) is None
    written = checkpoint.path.stat().st_mtime_ns
    cache.close()
    with closing(CheckpointCache(tmp_path, said.append)) as next_run:
        assert next_run.get(ONE).path.stat().st_mtime_ns == written
    assert said == []


def test_a_damaged_checkpoint_is_said_and_made_again(cache: CheckpointCache, said: list[str]) -> None:
    path = cache.get(ONE).path
    cache.close()
    path.write_bytes(path.read_bytes()[:100])
    assert misfit(ONE, cache.get(ONE).folder) is None
    assert len(said) == 1
    assert f"{ONE.name}: checkpoint.pt has 100 bytes" in said[0]


def test_a_checkpoint_stays_what_it_was_when_it_was_looked_at(
    cache: CheckpointCache, tmp_path: Path, said: list[str]
) -> None:
    """The checks of a run report a change within it: the next test does not find the file sound again."""
    first = cache.get(ONE)
    assert first.file_identities == file_identities(first.folder)
    assert {identity.name for identity in first.file_identities} == {
        "checkpoint.pt",
        "digests.json",
        "logits.pt",
        "manifest.json",
    }
    os.utime(first.path)
    assert cache.get(ONE).file_identities == first.file_identities != file_identities(first.folder)
    with closing(CheckpointCache(tmp_path, said.append)) as next_run:
        assert next_run.get(ONE).file_identities == file_identities(first.folder)
    assert said == []


def killed_while_writing(folder: Path) -> None:
    def die(_: int) -> None:
        if list(folder.glob("*.unfinished/checkpoint.pt")):
            os.kill(os.getpid(), signal.SIGKILL)

    CheckpointCache(folder, print, lambda _what, _total: nullcontext(die)).get(ONE)


def test_what_a_killed_run_left_is_made_again(cache: CheckpointCache, tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=killed_while_writing, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / ONE.name).exists()
    assert list(tmp_path.glob("*.unfinished"))
    assert misfit(ONE, cache.get(ONE).folder) is None
    assert not list(tmp_path.glob("*.unfinished"))


def test_what_a_killed_run_left_goes_with_the_next_run_of_anything(cache: CheckpointCache, tmp_path: Path) -> None:
    dead, alive, strange = (tmp_path / f"{name}.unfinished" for name in ("own-dead", "gpt2-alive", "strange"))
    for folder in (dead, alive, strange):
        folder.mkdir()
        (folder / "checkpoint.pt").touch()
    for folder in (dead, alive):
        folder.with_suffix(".lock").touch()
    with alive.with_suffix(".lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # As a run does that makes it.
        cache.get(ONE)
    assert sorted(path.name for path in tmp_path.glob("*.unfinished")) == [alive.name, strange.name]


def get_one(folder: Path, made: "multiprocessing.SimpleQueue[int]") -> None:
    def count(_: object, __: int) -> nullcontext[Callable[[int], None]]:
        made.put(os.getpid())
        return nullcontext(lambda _: None)

    assert misfit(ONE, CheckpointCache(folder, print, count).get(ONE).folder) is None


def test_of_two_runs_at_once_one_makes_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    made = context.SimpleQueue()
    runs = [context.Process(target=get_one, args=(tmp_path, made)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert [run.exitcode for run in runs] == [0, 0]
    made.get()
    assert made.empty()


def test_too_small_a_disk_is_said_before_anything_is_written(
    cache: CheckpointCache, tmp_path: Path, disk: Free
) -> None:
    disk(ONE.disk_bytes - 1)
    for ask in (lambda: cache.require_space([ONE]), lambda: cache.get(ONE)):
        with pytest.raises(DiskTooSmall, match=rf"{ONE.name} needs .* free under --checkpoint-dir; free .* more"):
            ask()
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_a_disk_for_one_holds_them_in_turn(cache: CheckpointCache, tmp_path: Path, disk: Free, said: list[str]) -> None:
    disk(ONE.disk_bytes + 1000)
    cache.require_space([ONE, OTHER])
    for specification in (ONE, OTHER, ONE):
        cache.get(specification)
        assert [path.parent.name for path in tmp_path.glob("*/manifest.json")] == [specification.name]
    assert said == [f"{ONE.name}: removed, the disk is short", f"{OTHER.name}: removed, the disk is short"]


def test_what_another_run_uses_is_not_removed(
    cache: CheckpointCache, tmp_path: Path, disk: Free, said: list[str]
) -> None:
    cache.get(ONE)
    disk(ONE.disk_bytes + 1000)
    with closing(CheckpointCache(tmp_path, said.append)) as other_run:
        with pytest.raises(DiskTooSmall):
            other_run.get(OTHER)
        cache.close()
        assert other_run.get(OTHER).path.exists()
    assert not (tmp_path / ONE.name).exists()


def test_too_little_memory_to_make_it_is_said_before_anything_is_written(
    cache: CheckpointCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    with pytest.raises(
        MemoryTooSmall, match=r"^making its checkpoint takes 0.0 MB of memory, and 0.0 MB are free; add --plan"
    ):
        cache.get(ONE)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_a_small_checkpoint_does_not_drive_out_a_large_one(
    cache: CheckpointCache, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    """A rehearsal must not cost the checkpoint that it is the rehearsal of."""
    cache.get(OTHER)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * ONE.disk_bytes))
    cache.get(ONE)
    assert said == []


def test_a_disk_that_fills_up_is_said_and_leaves_nothing_half_made(tmp_path: Path, said: list[str]) -> None:
    def fill_up(_: int) -> None:
        if list(tmp_path.glob("*.unfinished/checkpoint.pt")):
            raise OSError(28, "No space left on device")

    with closing(CheckpointCache(tmp_path, said.append, lambda _what, _total: nullcontext(fill_up))) as cache:
        with pytest.raises(OSError, match="No space left on device"):
            cache.get(ONE)
        assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []
    with closing(CheckpointCache(tmp_path, said.append)) as next_run:
        assert misfit(ONE, next_run.get(ONE).folder) is None
    assert said == []


def test_progress_reaches_about_the_announced_total(tmp_path: Path) -> None:
    told: list[int] = []
    totals: list[int] = []

    def show(_: str, total: int) -> nullcontext[Callable[[int], None]]:
        totals.append(total)
        return nullcontext(told.append)

    tiny = Specification("tiny", "float32", "torch")
    with closing(CheckpointCache(tmp_path, print, show)) as cache:
        cache.get(tiny)
    assert totals == [2 * tiny.footprint.state_bytes]
    assert sum(told) == pytest.approx(totals[0], rel=0.15)


def test_weights_stay_for_the_cast_of_them_that_is_made(cache: CheckpointCache, disk: Free, said: list[str]) -> None:
    """Though the disk has no room for more, and they are all that could go."""
    disk(ONE.disk_bytes)
    cast = cache.get(replace(ONE, cast="float16"))
    assert cast.path.is_file()
    assert not [line for line in said if line.startswith(f"{ONE.name}:")]
    # When they go, for something else, what lies beside them is made anew with them.
    third = replace(OTHER, dtype="bfloat16")
    disk(third.disk_bytes + 1000)
    cache.get(third)
    assert not cast.path.exists()
    disk(2**30)
    assert cache.get(replace(ONE, cast="float16")).path.is_file()
