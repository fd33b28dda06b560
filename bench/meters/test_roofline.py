import mmap
import os
import sys
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from bench.meters import roofline
from bench.meters.host import fresh_memory
from bench.meters.page_cache import evict
from bench.meters.roofline import DISK, ROOFLINES, Roofline
from bench.meters.simulated.ledger import Ledger
from bench.meters.simulated.simulation import simulation
from bench.meters.test_page_cache import on_disk, resident

if sys.platform != "linux":
    pytest.skip("needs Linux's page cache", allow_module_level=True)

PAGE = mmap.PAGESIZE
CPU = torch.device("cpu")
SIZES = (7 * PAGE + 123, 0, 1, 8 * PAGE, 33 * PAGE + 4095)

# A file, whether it was read past the page cache, the place, and how many bytes came.
Read = tuple[str, bool, int, int]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, ...]:
    """Small ones, all of different bytes, of which a read takes a part only."""
    monkeypatch.setattr(roofline, "READ_BYTES", (2 * PAGE, 3 * PAGE))
    monkeypatch.setattr(roofline, "BUFFER_BYTES", 2 * PAGE)
    paths = tuple(on_disk(tmp_path) / f"file{number}" for number in range(len(SIZES)))
    for number, (path, size) in enumerate(zip(paths, SIZES, strict=True)):
        path.write_bytes(bytes((number + at // 7) % 251 for at in range(size)))
    return paths


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[Read]]:
    """Notes every read from now on, each of which gives no more than so many bytes."""

    def start(most: int) -> list[Read]:
        noted: list[Read] = []
        preadv = os.preadv

        def note(descriptor: int, buffers: Sequence[Any], place: int) -> int:
            with memoryview(buffers[0]) as whole, whole[:most] as part:
                count = preadv(descriptor, [part], place)
            flags = int(Path(f"/proc/self/fdinfo/{descriptor}").read_text().split()[3], 8)
            name = Path(f"/proc/self/fd/{descriptor}").readlink().name
            noted.append((name, bool(flags & os.O_DIRECT), place, count))
            return count

        monkeypatch.setattr(os, "preadv", note)
        return noted

    return start


def covered(reads: Sequence[Read]) -> dict[str, list[int]]:
    """Return how often each byte of each file was read."""
    times = {f"file{number}": [0] * size for number, size in enumerate(SIZES)}
    for name, _, place, count in reads:
        for at in range(place, place + count):
            times[name][at] += 1
    return times


ONCE = {f"file{number}": [1] * size for number, size in enumerate(SIZES)}


@pytest.mark.parametrize("kind", sorted(set(ROOFLINES) - {"pinned"}))
def test_every_limit_of_the_host_can_be_measured(files: tuple[Path, ...], kind: str) -> None:
    assert ROOFLINES[kind](files, CPU) > 0
    assert Roofline(kind, files, CPU, 0).bytes_per_second() > 0


@pytest.mark.parametrize("most", [2**30, PAGE + 1, 1000])
def test_all_of_the_files_ends_in_fresh_memory(
    monkeypatch: pytest.MonkeyPatch, files: tuple[Path, ...], reads: Callable[[int], list[Read]], most: int
) -> None:
    memories: list[mmap.mmap] = []

    def keep(size: int) -> mmap.mmap:
        memories.append(fresh_memory(size))
        return memories[-1]

    monkeypatch.setattr(roofline, "fresh_memory", keep)
    noted = reads(most)
    roofline.into_fresh_memory(files, CPU)
    assert [bytes(memory) for memory in memories] == [path.read_bytes() for path in files if path.stat().st_size]
    assert covered(noted) == ONCE
    assert not any(past for _, past, _, _ in noted)


def test_every_page_of_a_mapping_is_found_whatever_the_kernel_knows(
    monkeypatch: pytest.MonkeyPatch, files: tuple[Path, ...]
) -> None:
    """The files are in the page cache afterwards, and were not before."""
    whole = [-(-size // PAGE) * PAGE for size in SIZES]
    for advice in (roofline.MADV_POPULATE_READ, 12345):
        evict(files)
        monkeypatch.setattr(roofline, "MADV_POPULATE_READ", advice)
        roofline.into_mapping(files, CPU)
        assert [resident(path) for path in files] == whole
    # Nothing stays mapped.
    evict(files)


def test_the_disk_is_read_from_both_ways_and_nothing_is_cached_before(
    monkeypatch: pytest.MonkeyPatch, files: tuple[Path, ...], reads: Callable[[int], list[Read]]
) -> None:
    noted = reads(2**30)
    before: list[int] = []

    def evict_and_note(paths: Sequence[Path]) -> None:
        assert paths == files
        evict(paths)
        before.append(len(noted))

    monkeypatch.setattr(roofline, "evict", evict_and_note)
    roofline.from_disk(files, CPU)
    ways = [list(way) for _, way in groupby(noted, key=lambda read: read[1])]
    assert sorted(way[0][1] for way in ways) == [False, True]
    assert [covered(way) for way in ways] == [ONCE, ONCE]
    assert before == [0, len(ways[0])]


@pytest.mark.parametrize("seconds", [(1.0, 2.0), (2.0, 1.0)])
def test_the_faster_way_from_the_disk_counts(
    monkeypatch: pytest.MonkeyPatch, files: tuple[Path, ...], seconds: tuple[float, float]
) -> None:
    monkeypatch.setattr(roofline, "_from_disk", lambda _, flags: seconds[bool(flags)])
    assert roofline.from_disk(files, CPU) == 1.0
    assert roofline.direct_is_faster(files) == (seconds[1] < seconds[0])


def test_where_the_page_cache_cannot_be_passed_files_are_read_through_it(
    monkeypatch: pytest.MonkeyPatch, files: tuple[Path, ...]
) -> None:
    def refuse(_: Sequence[Path], flags: int) -> float:
        if flags:
            raise OSError(22, "Invalid argument")
        return 3.0

    monkeypatch.setattr(roofline, "_from_disk", refuse)
    assert roofline.from_disk(files, CPU) == 3.0
    assert not roofline.direct_is_faster(files)
    monkeypatch.delattr(os, "O_DIRECT")
    assert roofline.from_disk(files, CPU) == 3.0


def test_a_file_that_cannot_be_read_ends_the_measurement(tmp_path: Path, files: tuple[Path, ...]) -> None:
    for measure in (roofline.into_fresh_memory, roofline.into_mapping, roofline.from_disk):
        with pytest.raises(FileNotFoundError):
            measure((*files, tmp_path / "nowhere"), CPU)


class Copies(TorchFunctionMode):
    """Notes of every copy its bytes, whether they come from page-locked memory, and where they go."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[tuple[int, bool, str]] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.copy_:
            target, source = args
            assert source.nbytes == target.nbytes
            self.copies.append((source.nbytes, source.is_pinned(), target.device.type))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("room", [1000, 8 * PAGE, 2**20])
def test_as_many_bytes_as_the_files_have_come_from_page_locked_memory(
    monkeypatch: pytest.MonkeyPatch, files: tuple[Path, ...], room: int
) -> None:
    monkeypatch.setattr(roofline, "PINNED_BYTES", room)
    with simulation(Ledger(None), planned=False), Copies() as noted:
        assert roofline.from_pinned_memory(files, torch.device("cuda")) > 0
    assert sum(count for count, _, _ in noted.copies) == sum(SIZES)
    assert max(count for count, _, _ in noted.copies) <= room
    assert {(pinned, device) for _, pinned, device in noted.copies} == {(True, "cuda")}


def test_a_limit_is_bytes_a_second(monkeypatch: pytest.MonkeyPatch, files: tuple[Path, ...]) -> None:
    asked: list[object] = []

    def measure(paths: Sequence[Path], device: torch.device) -> float:
        asked.append((paths, device))
        return 4.0

    monkeypatch.setitem(ROOFLINES, "memory", measure)
    assert Roofline("memory", files, CPU, 0).bytes_per_second() == sum(SIZES) / 4
    assert asked == [(files, CPU)]


@pytest.mark.parametrize("kind", ROOFLINES)
def test_what_a_load_is_to_find_is_free_memory_and_files_that_are_cached_but_for_the_disks(
    monkeypatch: pytest.MonkeyPatch, files: tuple[Path, ...], kind: str
) -> None:
    done: list[object] = []

    def measure(paths: Sequence[Path], _: torch.device) -> float:
        for path in paths:
            path.read_bytes()
        done.append("measured")
        return 2.0

    monkeypatch.setattr(roofline, "touch_free_memory", done.append)
    monkeypatch.setitem(ROOFLINES, kind, measure)
    assert Roofline(kind, files, CPU, 12345).prepare() == sum(SIZES) / 2
    assert done == [12345, "measured"]
    whole = sum(-(-size // PAGE) * PAGE for size in SIZES)
    assert sum(map(resident, files)) == (0 if kind == DISK else whole)
