"""A simulated device that has so much memory and no more."""

import torch

from bench.meters.simulated.allocator import CachingAllocator, OutOfSegments
from bench.meters.simulated.allocator_settings import MIB, AllocatorSettings
from bench.meters.simulated.ledger import Event, Ledger
from bench.meters.simulated.peaks import DeviceBlocks


def limit(ledger: Ledger, place: str, settings: AllocatorSettings, capacity: int) -> None:
    """From now on, what is asked for in `place` beyond `capacity` bytes raises `torch.OutOfMemoryError` there."""
    blocks = DeviceBlocks(CachingAllocator(settings, capacity))

    def hear(event: Event) -> None:
        try:
            blocks.hear(event)
        except OutOfSegments:
            # All that was cached has gone back to the driver, in vain.
            ledger.cache_emptied(place)
            raise torch.OutOfMemoryError(_told(event.bytes, blocks.allocator, capacity)) from None

    ledger.capacities[place] = capacity
    ledger.tell(place, hear)


def _told(asked: int, allocator: CachingAllocator, capacity: int) -> str:
    """What is told of it, in PyTorch's own words: others read them."""
    unused = allocator.reserved_bytes - allocator.allocated_bytes
    return (
        f"CUDA out of memory. Tried to allocate {_shown(asked)}. GPU 0 has a total capacity of {_shown(capacity)} of "
        f"which {_shown(capacity - allocator.reserved_bytes)} is free. Of the allocated memory "
        f"{_shown(allocator.allocated_bytes)} is allocated by PyTorch, and {_shown(unused)} is reserved by PyTorch but "
        f"unallocated."
    )


def _shown(count: int) -> str:
    if count < MIB:
        return f"{count / 2**10:.2f} KiB"
    return f"{count / MIB:.2f} MiB" if count < 2**30 else f"{count / 2**30:.2f} GiB"
