"""The ledger of a load: its storages, the place of each, and the line of the recipe that allocated it.

A ledger records events; `peaks.py` computes sums of them.
"""

import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count

import torch

from bench.meters.allocations import AllocationEvent, SourceLine
from bench.meters.host import PAGE_BYTES

# The places of a storage. A device is a place by its name, as `cuda:0`; a skeleton has none and costs nothing.
HOST = "host"
FILE = "file"
PINNED = "pinned"

# The places in which a tensor says that it is on the CPU.
ON_HOST = frozenset((HOST, FILE, PINNED))

# The first addresses of storages without bytes, on the host and on devices. No process has memory there.
HOST_ADDRESSES = 2**60
DEVICE_ADDRESSES = 2**61

Storage = torch.UntypedStorage


class _Thread(threading.local):
    """Streams of a thread: the current one, at first the default, and those that were current outside of it."""

    def __init__(self) -> None:
        self.stream = 0
        self.entered: list[int] = []


Span = tuple[int, int]


@dataclass(eq=False)
class MappedPages:
    """The pages of a mapped file that were read: they stay until the last storage of the file is freed."""

    touched: list[tuple[int, int]]


@dataclass(eq=False)
class _Entry:
    """A live storage. `number` is None if it was there before the ledger was started."""

    place: str
    bytes: int
    number: int | None
    address: int
    gone: "weakref.ref[Storage]"
    line: SourceLine | None
    mapping: MappedPages | None = None
    read: list[Span] = field(default_factory=list)
    whole: Storage | None = None


class Ledger:
    """Follows storages from their entry until they are freed."""

    def __init__(self, source: str | None) -> None:
        """Start a ledger; `source` is the file of the recipe, whose lines it records."""
        self.events: list[AllocationEvent] = []
        self._source = source
        self._entries: dict[int, _Entry] = {}
        self._numbers = count(1)
        self.thread = _Thread()
        self._addresses = {True: HOST_ADDRESSES, False: DEVICE_ADDRESSES}
        # Threads load too; and a storage may go, which is heard at once, while another is being entered.
        self._lock = threading.RLock()
        self._watchers: dict[str, Callable[[AllocationEvent], object]] = {}
        # The most bytes of a place; a place without an entry has no limit.
        self.capacities: dict[str, int] = {}

    def watch(self, place: str, watcher: Callable[[AllocationEvent], object]) -> None:
        """Call `watcher` with every event of a place from now on; an event that it raises for has not happened."""
        self._watchers[place] = watcher

    def restart(self) -> None:
        """Forget all events; storages that are alive now count no more."""
        self.events.clear()
        for entry in self._entries.values():
            entry.number = None
            if entry.mapping:
                entry.mapping.touched.clear()

    def place(self, storage: Storage) -> str | None:
        """Return the place of a storage; None if the ledger does not know it."""
        entry = self._entries.get(storage._cdata)
        return entry.place if entry else None

    def address(self, storage: Storage) -> int | None:
        """Return an address as the storage might have if it had bytes: no two live storages have the same."""
        entry = self._entries.get(storage._cdata)
        return entry.address if entry else None

    def born(self, storage: Storage, place: str) -> None:
        """Follow a storage from now on."""
        with self._lock:
            entry = self._follow(storage, place)
            entry.number = self._came(place, entry.bytes, entry.line)

    def mapped(self, storage: Storage, mapping: MappedPages) -> None:
        """Follow a storage of a mapped file: its bytes count once they are read, see `touched`."""
        with self._lock:
            self._follow(storage, FILE).mapping = mapping

    def part(self, storage: Storage, whole: Storage, start: int) -> None:
        """Follow a storage that is a part of another, from a byte of it on: it takes nothing, and keeps that alive."""
        with self._lock:
            known, key = self._entries[whole._cdata], storage._cdata
            gone = weakref.ref(storage, lambda _: self._gone(key))
            address = known.address + start
            self._entries[key] = _Entry(known.place, storage.nbytes(), None, address, gone, known.line, whole=whole)

    def touched(self, storage: Storage, start: int, end: int) -> None:
        """Count bytes of a mapped storage as read."""
        entry = self._entries.get(storage._cdata)
        if entry and entry.mapping:
            with self._lock:
                before = sum(last - first for first, last in entry.read)
                entry.read = _joined([*entry.read, (start, end)])
                if added := sum(last - first for first, last in entry.read) - before:
                    # Whoever reads it: the line that mapped it brought it there.
                    entry.number = self._came(FILE, added, entry.line, entry.number)
                    entry.mapping.touched.append((entry.number, added))

    def unmapped(self, touched: Iterable[tuple[int, int]]) -> None:
        """Free the pages of a mapped file that is gone, those of its storages that were read."""
        for number, size in touched:
            self._went(FILE, number, size)

    def resized(self, storage: Storage) -> None:
        """Record a change of a storage's size: the new bytes are there before the old ones go."""
        entry = self._entries.get(storage._cdata)
        if entry and storage.nbytes() != entry.bytes:
            with self._lock:
                old, old_bytes = entry.number, entry.bytes
                entry.bytes = storage.nbytes()
                entry.number = self._came(entry.place, entry.bytes, self.asking_line())
                if old is not None:
                    self._went(entry.place, old, old_bytes)

    def cache_emptied(self, place: str) -> None:
        self._write(AllocationEvent(place, -1, 0, None, 0, time.monotonic()))

    def held_bytes(self, place: str) -> int:
        """Return the bytes alive in a place of what was allocated since the ledger was started."""
        return sum(event.bytes for event in self.events if event.place == place)

    def asking_line(self) -> SourceLine | None:
        """Return the line of the recipe that is running."""
        frame = sys._getframe(1)
        while frame:
            if frame.f_code.co_filename == self._source:
                return SourceLine(self._source, frame.f_lineno)
            frame = frame.f_back  # type: ignore[assignment]
        return None

    def _follow(self, storage: Storage, place: str) -> _Entry:
        key, size = storage._cdata, storage.nbytes()
        gone = weakref.ref(storage, lambda _: self._gone(key))
        on_host = place in ON_HOST
        entry = _Entry(place, size, None, self._addresses[on_host], gone, self.asking_line())
        # Allocators align to 512 bytes, and on the host to a page.
        step = PAGE_BYTES if on_host else 512
        self._addresses[on_host] += max(-(-size // step), 1) * step
        self._entries[key] = entry
        return entry

    def _came(self, place: str, size: int, line: SourceLine | None, number: int | None = None) -> int:
        """Record an allocation, or more bytes of the storage of that number."""
        number = next(self._numbers) if number is None else number
        if size:
            self._write(AllocationEvent(place, number, size, line, self.thread.stream, time.monotonic()))
        return number

    def _went(self, place: str, number: int, size: int) -> None:
        if size:
            self._write(AllocationEvent(place, number, -size, None, 0, time.monotonic()))

    def _write(self, event: AllocationEvent) -> None:
        if watcher := self._watchers.get(event.place):
            watcher(event)
        self.events.append(event)

    def _gone(self, key: int) -> None:
        with self._lock:
            entry = self._entries.pop(key)
            if entry.number is not None and entry.mapping is None:
                self._went(entry.place, entry.number, entry.bytes)


def without_asking(place: str) -> str:
    """Return the place of a copy of something in `place`: page-locked memory has to be asked for."""
    return HOST if place in ON_HOST else place


def in_place(events: Iterable[AllocationEvent], *places: str) -> list[AllocationEvent]:
    return [event for event in events if event.place in places]


def _joined(spans: list[Span]) -> list[Span]:
    """Return the same bytes in spans that do not overlap."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined
