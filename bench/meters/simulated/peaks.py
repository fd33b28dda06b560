"""Peaks of the host and of simulated devices, computed from the events of a ledger."""

from bench.meters.allocations import AllocationEvent, MemoryPeak, peak_of, points_of, sum_peak
from bench.meters.allocator_settings import AllocatorSettings
from bench.meters.simulated.allocator import CachingAllocator
from bench.meters.simulated.blocks import Block
from bench.meters.simulated.ledger import PINNED
from bench.meters.simulated.pinned import PinnedAllocator
from bench.meters.timeline import Point


def host_peak(events: list[AllocationEvent]) -> MemoryPeak:
    """Return the peak of the host: blocks of page-locked memory, cached ones included, and requested bytes beside."""
    return peak_of(events, *_host_totals(events))


def host_held(events: list[AllocationEvent]) -> int:
    """Return the bytes of the host that are held after these events, counted as in `host_peak`."""
    totals, _ = _host_totals(events)
    return totals[-1] if totals else 0


def host_points(events: list[AllocationEvent]) -> list[Point]:
    """Return the bytes of the host that are held over time; their maximum is `host_peak`."""
    return points_of(events, _host_totals(events)[0])


def _host_totals(events: list[AllocationEvent]) -> tuple[list[int], dict[int, int]]:
    """Return the bytes held after each event, and the size of the block of each page-locked storage."""
    pinned, others, totals = PinnedAllocator(), 0, []
    for event in events:
        if event.place == PINNED:
            pinned.apply(event)
        else:
            others += event.bytes
        totals.append(others + pinned.allocated_bytes)
    return totals, pinned.sizes


def device_peaks(
    events: list[AllocationEvent], settings: AllocatorSettings, capacity: int | None = None
) -> dict[str, MemoryPeak]:
    """Return the peaks of one device: `requested` bytes, `allocated` in blocks, and `reserved` in segments."""
    blocks, allocated, reserved = DeviceBlocks(CachingAllocator(settings, capacity)), [], []
    for event in events:
        blocks.apply(event)
        allocated.append(blocks.allocator.allocated_bytes)
        reserved.append(blocks.allocator.reserved_bytes)
    return {
        "requested": sum_peak(events),
        "allocated": peak_of(events, allocated, blocks.sizes),
        "reserved": peak_of(events, reserved, blocks.sizes),
    }


class DeviceBlocks:
    """The blocks that a device's allocator hands out for the events of a ledger."""

    def __init__(self, allocator: CachingAllocator) -> None:
        self.allocator = allocator
        # The size of the block of each storage that ever got one.
        self.sizes: dict[int, int] = {}
        self._blocks: dict[int, Block] = {}

    def apply(self, event: AllocationEvent) -> None:
        """Allocate, free or empty the cache. Raises `OutOfSegments` if no memory is left for a storage."""
        if event.bytes > 0:
            self._blocks[event.storage] = block = self.allocator.allocate(event.bytes, event.stream)
            self.sizes[event.storage] = block.size
        elif event.bytes < 0:
            self.allocator.free(self._blocks.pop(event.storage))
        else:
            self.allocator.empty_cache()
