"""Page-locked memory: a model of PyTorch's caching allocator for it, and real memory for loads that write to it."""

import ctypes
import mmap
import weakref
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import reduce
from itertools import pairwise
from operator import or_

from bench.meters.allocations import AllocationEvent
from bench.meters.host import PAGE_BYTES

# PyTorch's names of its counts: of blocks, and of the blocks in use.
_FIGURES = ("allocations", "allocated_bytes", "active_requests", "active_bytes")


class PinnedAllocator:
    """Counts blocks as PyTorch does: all, cached ones included, are `allocated`, those in use are `active`."""

    def __init__(self) -> None:
        self.allocations = self.allocated_bytes = self.active_requests = self.active_bytes = 0
        # The size of the block of each storage.
        self.sizes: dict[int, int] = {}
        # The number of blocks in use by size.
        self.active = Counter[int]()
        self._cached = Counter[int]()

    def apply(self, event: AllocationEvent) -> None:
        """Allocate, free or empty the cache, as an event says."""
        if event.bytes == 0:
            self._empty_cache()
            return
        came = 1 if event.bytes > 0 else -1
        if came > 0:
            self.sizes[event.storage] = _block_bytes(event.bytes)
        size = self.sizes[event.storage]
        if came < 0 or self._cached[size]:
            self._cached[size] -= came
        else:
            self.allocations += 1
            self.allocated_bytes += size
        self.active[size] += came
        self.active_requests += came
        self.active_bytes += came * size

    def _empty_cache(self) -> None:
        self.allocations -= self._cached.total()
        self.allocated_bytes -= sum(size * count for size, count in self._cached.items())
        self._cached.clear()


def host_stats(events: Iterable[AllocationEvent], since: int) -> dict[str, dict[str, int]]:
    """Return the figures of `torch.cuda.host_memory_stats` except times; peaks are those from event number `since` on.

    PyTorch keeps the peaks of blocks in use for every size of a block, and adds them up: see `getStats` there.
    """
    allocator = PinnedAllocator()
    counted = {figure: [0] for figure in _FIGURES}
    active = [Counter[int]()]
    for event in events:
        allocator.apply(event)
        active.append(allocator.active.copy())
        for figure, values in counted.items():
            values.append(getattr(allocator, figure))
    stats = {figure: _stat(values, since) for figure, values in counted.items()}
    peaks = reduce(or_, active[min(since, len(active) - 1) :])
    stats["active_requests"]["peak"] = peaks.total()
    stats["active_bytes"]["peak"] = sum(size * count for size, count in peaks.items())
    return stats


def _stat(values: list[int], since: int) -> dict[str, int]:
    changes = [after - before for before, after in pairwise(values)]
    return {
        "current": values[-1],
        "peak": max(values[min(since, len(values) - 1) :]),
        "allocated": sum(change for change in changes if change > 0),
        "freed": -sum(change for change in changes if change < 0),
    }


class PinnedMemory:
    """Blocks of real memory by the same rules: a cached one stays the process's."""

    def __init__(self) -> None:
        self._cached: dict[int, list[mmap.mmap]] = defaultdict(list)

    def allocate(self, requested: int) -> "ctypes.Array[ctypes.c_char]":
        """Return memory for a request of one byte or more, resident at once; it is cached when nobody refers to it."""
        size = _block_bytes(requested)
        try:
            block = self._cached[size].pop()
        except IndexError:
            block = _resident(size)
        memory = (ctypes.c_char * requested).from_buffer(block)
        weakref.finalize(memory, self._free, block).atexit = False
        return memory

    def empty_cache(self) -> None:
        self._cached.clear()

    def _free(self, block: mmap.mmap) -> None:
        self._cached[len(block)].append(block)


def _block_bytes(requested: int) -> int:
    return 1 << (requested - 1).bit_length()


def _resident(size: int) -> mmap.mmap:
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memoryview(block)[::PAGE_BYTES] = bytes(-(-size // PAGE_BYTES))
    return block
