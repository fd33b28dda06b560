"""Blocks that are laid out as files are, and rings."""

from typing import Any, NamedTuple

import pytest
import torch

from bench.meters.simulated.ledger import Ledger
from bench.meters.simulated.simulation import simulation
from bench.strategies.reading import memory
from bench.strategies.reading.memory import Ring, in_blocks
from bench.strategies.reading.records import StorageSpan
from bench.strategies.reading.threads import PAGE_BYTES

CPU = torch.device("cpu")
CUDA = torch.device("cuda")
KIB = 1024


class Named(NamedTuple):
    """Return as much of a file as is asked for."""

    name: str


class Opened:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


def drained(ring: Any) -> list[int]:
    """Return the length of its slots."""
    return [len(ring._slots.get()[0]) for _ in range(ring._slots.qsize())]


def ring_of(device: torch.device, ring_bytes: int, threads: int, *, direct: bool, file_bytes: int = 2**30) -> Any:
    record = StorageSpan(Named(name="file"), 64, 64 + file_bytes)  # type: ignore[arg-type]
    return Ring(Opened(direct=direct), device, ring_bytes, record.end - record.start, threads)


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("threads", range(1, 17))
@pytest.mark.parametrize("file_bytes", [1, 2**16, 3 * 2**20, 2**30])
def test_no_slot_is_shorter_than_what_is_read_to_it(threads: int, direct: bool, file_bytes: int) -> None:
    """A read behind its end would be of other memory of the process."""
    ring = ring_of(CPU, 0, threads, direct=direct, file_bytes=file_bytes)
    slots = drained(ring)
    assert slots
    assert ring.step_bytes >= PAGE_BYTES
    # Past the page cache a part may begin within a page and end within one.
    assert min(slots) >= ring.step_bytes + direct * PAGE_BYTES
    assert sum(slots) <= memory.CONVERTED_BYTES


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("ring_bytes", [128 * KIB, 200_000, 2**20 + 1, 10**7, 64 * 2**20])
def test_nor_is_one_for_the_device(ring_bytes: int, direct: bool) -> None:
    with simulation(Ledger(__file__), planned=True):
        ring = ring_of(CUDA, ring_bytes, 2, direct=direct)
        slots = drained(ring)
        assert min(slots) >= ring.step_bytes + direct * PAGE_BYTES
        assert ring.step_bytes >= PAGE_BYTES
        assert len(slots) >= memory.SLOTS
        assert sum(slots) <= ring_bytes


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("ring_bytes", [1, 4096, 65536])
def test_a_ring_that_is_too_small_is_made_large_enough(ring_bytes: int, direct: bool) -> None:
    with simulation(Ledger(__file__), planned=True):
        ring = ring_of(CUDA, ring_bytes, 2, direct=direct)
        assert ring.step_bytes >= PAGE_BYTES
        assert min(drained(ring)) >= ring.step_bytes + direct * PAGE_BYTES


def record(opened: Any, start: int, size: int) -> StorageSpan:
    return StorageSpan(opened, start, start + size)


@pytest.mark.parametrize("block_bytes", [1, 3 * PAGE_BYTES, 2**28])
@pytest.mark.parametrize("threads", [1, 3, 8])
def test_parts_cover_every_record_and_stay_in_its_memory(
    block_bytes: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(memory, "READ_PAGES", 1)
    sizes = (10, 0, 5 * PAGE_BYTES, 64, 1, 3 * PAGE_BYTES - 1, 0, 4 * 2**20, 7)
    files = []
    for name in "ab":
        opened, place, records = Named(name=name), 100, {}
        for key, size in enumerate(sizes):
            records[str(key)] = record(opened, place, size)
            # In a file of torch.save there are headers between them.
            place += size + (PAGE_BYTES - place - size) % 64 + 64
        files.append(Opened(opened=opened, records=records))
    storages, parts = in_blocks(files, threads)
    reads: dict[tuple[str, int], int] = {}
    for opened, start, end, address in parts:
        assert start % PAGE_BYTES == address % PAGE_BYTES == 0
        assert start < end
        for page in range(start, end, PAGE_BYTES):
            reads[opened.name, address + page - start] = page
    for one, storage in storages.items():
        assert storage.nbytes() == one.end - one.start
        for byte in (one.start, one.end - 1) if one.start < one.end else ():
            address = storage.data_ptr() + byte - one.start
            assert reads[one.opened.name, address // PAGE_BYTES * PAGE_BYTES] == byte // PAGE_BYTES * PAGE_BYTES
    assert len(storages) == 2 * len(sizes)
