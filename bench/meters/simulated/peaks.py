"""From what a ledger wrote down to peaks, and to what was alive at each of them."""

import linecache
from collections import defaultdict
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from bench.meters.simulated.allocator import CachingAllocator
from bench.meters.simulated.allocator_settings import AllocatorSettings
from bench.meters.simulated.blocks import Block
from bench.meters.simulated.ledger import PINNED, Event, Line
from bench.meters.simulated.pinned import PinnedAllocator
from bench.meters.timeline import Point


@dataclass(frozen=True)
class LiveAllocation:
    """What one line of a recipe had alive: its bytes, in how many tensors, and the line, as `file.py:8` and code."""

    bytes: int
    tensors: int
    line: str
    code: str


@dataclass(frozen=True)
class Peak:
    """The most bytes at one time, and who had them, the most first. `alive` adds up to `bytes`."""

    bytes: int = 0
    alive: tuple[LiveAllocation, ...] = ()


ELSEWHERE = "outside the recipe"
CACHED = "cached by the allocator"


def sum_peak(events: list[Event]) -> Peak:
    """The peak of what was asked for, in one place."""
    return _peak(events, list(accumulate(event.bytes for event in events)), {})


def host_peak(events: list[Event]) -> Peak:
    """The peak of the host: of page-locked memory blocks count, cached ones too, of all other what was asked for."""
    return _peak(events, *_host_totals(events))


def host_held(events: list[Event]) -> int:
    """What of the host is held after these events; it is counted as `host_peak` does."""
    totals, _ = _host_totals(events)
    return totals[-1] if totals else 0


def sum_points(events: list[Event]) -> list[Point]:
    """What is asked for over time, in one place; the most of it is that of `sum_peak`."""
    return _points(events, list(accumulate(event.bytes for event in events)))


def host_points(events: list[Event]) -> list[Point]:
    """What is held of the host over time; the most of it is that of `host_peak`."""
    return _points(events, _host_totals(events)[0])


def _points(events: list[Event], totals: list[int]) -> list[Point]:
    return [(event.seconds, total) for event, total in zip(events, totals, strict=True)]


def _host_totals(events: list[Event]) -> tuple[list[int], dict[int, int]]:
    """What is held after each event, and the size of the block of each storage that got one."""
    pinned, others, totals = PinnedAllocator(), 0, []
    for event in events:
        if event.place == PINNED:
            pinned.hear(event)
        else:
            others += event.bytes
        totals.append(others + pinned.allocated_bytes)
    return totals, pinned.sizes


def device_peaks(events: list[Event], settings: AllocatorSettings, capacity: int | None = None) -> dict[str, Peak]:
    """The peaks of one device, by figure: `requested`, `allocated` in blocks, and `reserved` in segments."""
    blocks, allocated, reserved = DeviceBlocks(CachingAllocator(settings, capacity)), [], []
    for event in events:
        blocks.hear(event)
        allocated.append(blocks.allocator.allocated_bytes)
        reserved.append(blocks.allocator.reserved_bytes)
    return {
        "requested": sum_peak(events),
        "allocated": _peak(events, allocated, blocks.sizes),
        "reserved": _peak(events, reserved, blocks.sizes),
    }


class DeviceBlocks:
    """The blocks that the allocator of a device hands out for what a ledger writes down."""

    def __init__(self, allocator: CachingAllocator) -> None:
        self.allocator = allocator
        # Of every storage that ever got one the size of its block.
        self.sizes: dict[int, int] = {}
        self._blocks: dict[int, Block] = {}

    def hear(self, event: Event) -> None:
        """Raises `OutOfSegments` for a storage that there is no memory for."""
        if event.bytes > 0:
            self._blocks[event.storage] = block = self.allocator.allocate(event.bytes, event.stream)
            self.sizes[event.storage] = block.size
        elif event.bytes < 0:
            self.allocator.free(self._blocks.pop(event.storage))
        else:
            self.allocator.empty_cache()


def _peak(events: list[Event], totals: list[int], sizes: dict[int, int]) -> Peak:
    """The first of the largest totals, one for each event; what of it no storage holds is cached.

    `sizes` are those of storages that count for more than they asked for.
    """
    if not totals or max(totals) == 0:
        return Peak()
    most = max(totals)
    alive: dict[int, int] = defaultdict(int)
    lines: dict[int, Line | None] = {}
    for event in events[: totals.index(most) + 1]:
        alive[event.storage] += event.bytes
        lines.setdefault(event.storage, event.line)
    by_line: dict[Line | None, list[int]] = defaultdict(list)
    for storage, count in alive.items():
        if count:
            by_line[lines[storage]].append(sizes.get(storage, count))
    held = [LiveAllocation(sum(counts), len(counts), *_shown(line)) for line, counts in by_line.items()]
    if cached := most - sum(one.bytes for one in held):
        held.append(LiveAllocation(cached, 0, CACHED, ""))
    return Peak(most, tuple(sorted(held, key=lambda one: -one.bytes)))


def _shown(line: Line | None) -> tuple[str, str]:
    if line is None:
        return ELSEWHERE, ""
    return f"{Path(line.file).name}:{line.number}", linecache.getline(line.file, line.number).strip()
