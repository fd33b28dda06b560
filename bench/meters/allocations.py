"""Allocations of one place in order of time: their peak, and what was alive at it."""

import linecache
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from bench.meters.timeline import Point

ELSEWHERE = "outside the recipe"
CACHED = "cached by the allocator"

NO_SIZES: Mapping[int, int] = {}


class SourceLine(NamedTuple):
    """A line of source."""

    file: str
    number: int


class AllocationEvent(NamedTuple):
    """An allocation (`bytes` above 0), a free (below 0), each of a storage or a part of one, or an emptied cache (0).

    `stream` is the one that was current at the allocation, `seconds` are those of the monotonic clock.
    """

    place: str
    storage: int
    bytes: int
    line: SourceLine | None
    stream: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class LiveAllocation:
    """Live allocations of one line of a recipe: bytes, number of tensors, the line as `file.py:8`, and its code."""

    bytes: int
    tensors: int
    line: str
    code: str


# The live allocations at each peak, by the record's field of that peak.
Alive = Mapping[str, tuple[LiveAllocation, ...]]


@dataclass(frozen=True)
class MemoryPeak:
    """The most bytes at one time, and the allocations alive then, largest first; `alive` adds up to `bytes`."""

    bytes: int = 0
    alive: tuple[LiveAllocation, ...] = ()


def sum_peak(events: Sequence[AllocationEvent]) -> MemoryPeak:
    """Return the peak of the requested bytes of one place."""
    return peak_of(events, requested_totals(events))


def sum_points(events: Sequence[AllocationEvent]) -> list[Point]:
    """Return the requested bytes of one place over time; their maximum is `sum_peak`."""
    return points_of(events, requested_totals(events))


def requested_totals(events: Sequence[AllocationEvent]) -> list[int]:
    """Return the bytes that are alive after each event."""
    return list(accumulate(event.bytes for event in events))


def points_of(events: Sequence[AllocationEvent], totals: Sequence[int]) -> list[Point]:
    """Return the second of each event with the total after it."""
    return [(event.seconds, total) for event, total in zip(events, totals, strict=True)]


def peak_of(
    events: Sequence[AllocationEvent], totals: Sequence[int], sizes: Mapping[int, int] = NO_SIZES
) -> MemoryPeak:
    """Return the first of the largest `totals`, one for each event; bytes of it that no storage holds are cached.

    `sizes` are the bytes of storages that take more than they asked for.
    """
    if not totals or max(totals) == 0:
        return MemoryPeak()
    most = max(totals)
    alive: dict[int, int] = defaultdict(int)
    lines: dict[int, SourceLine | None] = {}
    for event in events[: totals.index(most) + 1]:
        alive[event.storage] += event.bytes
        lines.setdefault(event.storage, event.line)
    by_line: dict[SourceLine | None, list[int]] = defaultdict(list)
    for storage, count in alive.items():
        if count:
            by_line[lines[storage]].append(sizes.get(storage, count))
    held = [LiveAllocation(sum(counts), len(counts), *_line_and_code(line)) for line, counts in by_line.items()]
    if cached := most - sum(one.bytes for one in held):
        held.append(LiveAllocation(cached, 0, CACHED, ""))
    return MemoryPeak(most, tuple(sorted(held, key=lambda one: -one.bytes)))


def _line_and_code(line: SourceLine | None) -> tuple[str, str]:
    if line is None:
        return ELSEWHERE, ""
    return f"{Path(line.file).name}:{line.number}", linecache.getline(line.file, line.number).strip()
