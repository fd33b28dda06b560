import mmap
import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from bench.meters import page_cache
from bench.meters.page_cache import StillCached, evict, resident_bytes

if sys.platform != "linux":
    pytest.skip("needs Linux's page cache", allow_module_level=True)

PAGE = mmap.PAGESIZE
CONTENT = b"x" * (10 * PAGE + 1)


def on_disk(folder: Path) -> Path:
    """Return the folder; skip the test if its file system keeps everything in memory."""
    mounted = {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
    kind = next((mounted[str(place)] for place in (folder, *folder.parents) if str(place) in mounted), "")
    if kind in {"tmpfs", "ramfs"}:
        pytest.skip(f"{folder} is in memory")
    return folder


def resident(path: Path) -> int:
    with path.open("rb") as file:
        return resident_bytes(file.fileno())


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = on_disk(tmp_path) / "written"
    path.write_bytes(CONTENT)
    return path


def read_a_page(path: Path, place: int) -> None:
    """Nothing but this page, as far as the file system goes along."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(file.fileno(), 1, place * PAGE)


def test_what_was_just_written_can_be_evicted_and_comes_back_when_it_is_read(written: Path) -> None:
    assert resident(written) == 11 * PAGE
    evict([written])
    assert resident(written) == 0
    assert written.read_bytes() == CONTENT
    assert resident(written) == 11 * PAGE


def test_every_file_is_evicted(written: Path) -> None:
    others = [written.with_name(name) for name in ("first", "empty", "last")]
    for path in others:
        path.write_bytes(b"" if path.name == "empty" else CONTENT)
    evict([*others[:2], written, others[2]])
    assert [resident(path) for path in (written, *others)] == [0, 0, 0, 0]


def test_an_empty_file_has_nothing_to_evict(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    assert resident(path) == 0
    evict([path])


def test_what_was_read_of_a_file_counts_in_whole_pages(written: Path) -> None:
    evict([written])
    read_a_page(written, 4)
    count = resident(written)
    assert count % PAGE == 0
    assert PAGE <= count < 11 * PAGE


@pytest.mark.parametrize("pages", [1, 3, 10, 11, 12])
def test_a_large_file_is_looked_at_window_by_window(monkeypatch: pytest.MonkeyPatch, written: Path, pages: int) -> None:
    evict([written])
    for place in (10, 0):
        read_a_page(written, place)
        whole = resident(written)
        assert 0 < whole < 11 * PAGE
        with monkeypatch.context() as patch:
            patch.setattr(page_cache, "WINDOW_BYTES", pages * PAGE)
            assert resident(written) == whole
    written.read_bytes()
    monkeypatch.setattr(page_cache, "WINDOW_BYTES", pages * PAGE)
    assert resident(written) == 11 * PAGE
    evict([written])
    assert resident(written) == 0


def test_what_a_process_has_mapped_stays_and_is_told(monkeypatch: pytest.MonkeyPatch, written: Path) -> None:
    monkeypatch.setattr(page_cache, "PATIENCE_SECONDS", 0.1)
    before, after = written.with_name("before"), written.with_name("after")
    for path in (before, after):
        path.write_bytes(CONTENT)
    with written.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert set(mapped[::PAGE]) == {ord("x")}
        with pytest.raises(StillCached, match=f"^{11 * PAGE:,} bytes of written stay in the page cache: ") as caught:
            evict([before, written, after])
        assert "\n" not in str(caught.value)
        assert resident(before) == 0
    evict([written])
    assert resident(written) == 0


def test_pages_that_are_let_go_of_soon_are_waited_for(monkeypatch: pytest.MonkeyPatch, written: Path) -> None:
    with written.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        assert set(mapped[::PAGE]) == {ord("x")}
        naps: list[float] = []

        def nap(seconds: float) -> None:
            naps.append(seconds)
            mapped.close()

        monkeypatch.setattr(time, "sleep", nap)
        evict([written])
    assert len(naps) == 1
    assert resident(written) == 0


@pytest.mark.parametrize("mapped", [False, True])
def test_nothing_stays_open(monkeypatch: pytest.MonkeyPatch, written: Path, mapped: bool) -> None:
    monkeypatch.setattr(page_cache, "PATIENCE_SECONDS", 0.0)
    held = StillCached("held")

    def hold(_: int) -> int:
        raise held

    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    if mapped:
        monkeypatch.setattr(page_cache, "resident_bytes", hold)
        with pytest.raises(StillCached):
            evict([written])
    else:
        evict([written])
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208
