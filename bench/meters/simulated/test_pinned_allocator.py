"""The model of the allocator of page-locked memory."""

from mmap import mmap
from unittest.mock import patch
from weakref import WeakSet

import hypothesis
import pytest
from hypothesis import strategies as st

from bench.meters.allocations import AllocationEvent
from bench.meters.simulated import pinned
from bench.meters.simulated.ledger import PINNED
from bench.meters.simulated.pinned import PinnedAllocator, PinnedMemory, host_stats

MIB = 2**20


def came(storage: int, size: int) -> AllocationEvent:
    return AllocationEvent(PINNED, storage, size, None)


def went(storage: int, size: int) -> AllocationEvent:
    return came(storage, -size)


EMPTIED = AllocationEvent(PINNED, -1, 0, None)


def after(*events: AllocationEvent) -> tuple[int, int, int, int]:
    """Blocks and their bytes, and those in use."""
    allocator = PinnedAllocator()
    for event in events:
        allocator.apply(event)
    return allocator.allocations, allocator.allocated_bytes, allocator.active_requests, allocator.active_bytes


@pytest.mark.parametrize(
    ("requested", "size"), [(1, 1), (2, 2), (3, 4), (4096, 4096), (4097, 8192), (5 * MIB, 8 * MIB), (8 * MIB, 8 * MIB)]
)
def test_a_block_is_a_power_of_two(requested: int, size: int) -> None:
    assert after(came(1, requested)) == (1, size, 1, size)
    assert len(PinnedMemory().allocate(requested)) == requested


def test_a_freed_block_is_cached_and_serves_its_size_only() -> None:
    freed = (came(1, 5), went(1, 5))
    assert after(*freed) == (1, 8, 0, 0)
    assert after(*freed, came(2, 7)) == (1, 8, 1, 8)
    assert after(*freed, came(2, 4)) == (2, 12, 1, 4)
    assert after(*freed, came(2, 8), came(3, 8)) == (2, 16, 2, 16)


def test_an_emptied_cache_gives_back_what_is_not_in_use() -> None:
    assert after(came(1, 5), came(2, 100), went(1, 5), EMPTIED) == (1, 128, 1, 128)
    assert after(came(1, 5), went(1, 5), EMPTIED, came(2, 5)) == (1, 8, 1, 8)


@hypothesis.given(st.lists(st.integers(1, 5000) | st.integers(-5, 0)))
def test_the_memory_is_reused_where_the_model_says_so(steps: list[int]) -> None:
    """Above 0 a request, below 0 one of those in use is freed, 0 empties the cache."""
    memory, allocator, blocks = PinnedMemory(), PinnedAllocator(), WeakSet[mmap]()
    live: list[tuple[AllocationEvent, object]] = []

    def remembered(size: int) -> mmap:
        block = mmap(-1, size)
        blocks.add(block)
        return block

    for number, step in enumerate(steps):
        if step > 0:
            with patch.object(pinned, "_resident", remembered):
                live.append((came(number, step), memory.allocate(step)))
            allocator.apply(live[-1][0])
        elif step == 0:
            memory.empty_cache()
            allocator.apply(EMPTIED)
        elif live:
            event, _ = live.pop(step % len(live))
            allocator.apply(went(event.storage, event.bytes))
            del _
        assert sum(map(len, blocks)) == allocator.allocated_bytes


def test_stats_are_those_of_pytorch() -> None:
    events = [came(1, 5), came(2, 5), went(1, 5), went(2, 5), came(3, 5), EMPTIED]
    stats = host_stats(events, 0)
    assert stats["allocated_bytes"] == {"current": 8, "peak": 16, "allocated": 16, "freed": 8}
    assert stats["active_bytes"] == {"current": 8, "peak": 16, "allocated": 24, "freed": 16}
    assert stats["allocations"] == {"current": 1, "peak": 2, "allocated": 2, "freed": 1}
    assert stats["active_requests"]["peak"] == 2
    # From the fourth event on there was but one in use, and from behind the last one block.
    assert [host_stats(events, since)["active_requests"]["peak"] for since in (3, 5, 99)] == [1, 1, 1]
    assert [host_stats(events, since)["allocations"]["peak"] for since in (3, 5, 6, 99)] == [2, 2, 1, 1]


def test_peaks_of_blocks_in_use_are_those_of_every_size_added_up() -> None:
    """PyTorch 2.14.1 makes five blocks, of which only four were ever in use together."""
    events = [came(1, 8192), came(2, 32768), came(3, 512), came(4, 64), went(3, 512), came(5, 596293)]
    stats = host_stats(events, 0)
    assert (stats["active_requests"]["peak"], stats["active_bytes"]["peak"]) == (5, 1_090_112)
    assert (stats["active_requests"]["current"], stats["active_bytes"]["current"]) == (4, 1_089_600)
    stats = host_stats(events, 5)
    assert (stats["active_requests"]["peak"], stats["active_bytes"]["peak"]) == (4, 1_089_600)
