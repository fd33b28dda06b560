"""Page faults of timed loads."""

import mmap
from pathlib import Path

import torch
from torch import nn

from bench.meters.clock import LoadClock
from bench.meters.page_cache import evict
from bench.meters.test_clock import CountingMeter
from bench.meters.test_page_cache import on_disk

PAGES = 4096


def write_to_pages(path: Path, pages: int) -> None:
    """Copy the pages of a mapped file, each at a fault of its own."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        for page in range(pages):
            mapped[page * mmap.PAGESIZE] = 1


def test_faults_are_counted_round_by_round_until_the_first_logits(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(PAGES * mmap.PAGESIZE))
    in_load, in_use = iter([0, PAGES, 0]), iter([0, 0, PAGES])

    def load(_: torch.device) -> nn.Module:
        write_to_pages(tmp_path / "file", next(in_load))
        return nn.Linear(2, 2)

    # A later forward pass is not part of the load.
    later = LoadClock(
        load, lambda _: write_to_pages(tmp_path / "file", next(in_use, PAGES)), lambda _: None, CountingMeter()
    )
    for _ in range(3):
        later.load_and_use()
    quiet, loaded, used = later.minor_faults
    assert quiet < PAGES // 2
    assert PAGES <= loaded < 2 * PAGES
    assert PAGES <= used < 2 * PAGES
    later.finish_round()
    assert later.minor_faults == [quiet, loaded, used]


def test_pages_that_come_from_the_disk_are_major_faults(tmp_path: Path) -> None:
    path = on_disk(tmp_path) / "file"
    path.write_bytes(bytes(PAGES * mmap.PAGESIZE))
    places = iter([[], [0, PAGES // 2, PAGES - 1]])

    def load(_: torch.device) -> nn.Module:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            mapped.madvise(mmap.MADV_RANDOM)
            return nn.Linear(1 + sum(mapped[page * mmap.PAGESIZE] for page in next(places)), 1)

    clock = LoadClock(load, lambda _: None, lambda _: None, CountingMeter())
    clock.load_and_use()
    evict([path])
    clock.load_and_use()
    none, some = clock.major_faults
    assert some >= none + 3
