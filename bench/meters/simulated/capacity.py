"""The memory limit of a simulated device."""

import torch

from bench.meters.allocations import AllocationEvent
from bench.meters.allocator_settings import MIB, AllocatorSettings
from bench.meters.simulated.allocator import CachingAllocator, OutOfSegments
from bench.meters.simulated.ledger import Ledger
from bench.meters.simulated.peaks import DeviceBlocks


def limit(ledger: Ledger, place: str, settings: AllocatorSettings, capacity: int) -> None:
    """Limit `place` to `capacity` bytes from now on: requests beyond it raise `torch.OutOfMemoryError`."""
    blocks = DeviceBlocks(CachingAllocator(settings, capacity))

    def apply(event: AllocationEvent) -> None:
        try:
            blocks.apply(event)
        except OutOfSegments as out:
            # All that was cached has gone back to the driver, in vain.
            ledger.cache_emptied(place)
            raise torch.OutOfMemoryError(_message(out.segment_bytes, blocks.allocator, capacity)) from None

    ledger.capacities[place] = capacity
    ledger.watch(place, apply)


def _message(segment: int, allocator: CachingAllocator, capacity: int) -> str:
    """Return the error's message in PyTorch's own words, because others read them; it names a segment, not a tensor."""
    free = max(0, capacity - allocator.reserved_bytes)
    unused = allocator.reserved_bytes - allocator.allocated_bytes
    sizes = (segment, capacity, free, capacity, allocator.allocated_bytes, unused)
    return (
        "CUDA out of memory. Tried to allocate {}. GPU 0 has a total capacity of {} of which {} is free. {} allowed; "
        "Of the allocated memory {} is allocated by PyTorch, and {} is reserved by PyTorch but unallocated."
    ).format(*map(_format_size, sizes))


def _format_size(count: int) -> str:
    """Return bytes as PyTorch's `format_size` writes them."""
    if count <= 2**10:
        return f"{count} bytes"
    if count <= MIB:
        return f"{count / 2**10:.2f} KiB"
    return f"{count / MIB:.2f} MiB" if count <= 2**30 else f"{count / 2**30:.2f} GiB"
