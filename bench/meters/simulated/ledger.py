"""What was alive when: the storages of a load, where they were, and the line of the recipe that asked for them.

A ledger only writes down; `peaks.py` makes sums of it.
"""

import sys
import threading
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

import torch

# The places of a storage. A device is a place by its name, as `cuda:0`; a skeleton has none and costs nothing.
HOST = "host"
FILE = "file"

Storage = torch.UntypedStorage


class Line(NamedTuple):
    """A line of source."""

    file: str
    number: int


class Event(NamedTuple):
    """A storage that came (`bytes` above 0) or went (below 0), or a part of one, or a cache that was emptied (0)."""

    place: str
    storage: int
    bytes: int
    line: Line | None


Span = tuple[int, int]


@dataclass(eq=False)
class Mapping:
    """A mapped file: pages of it that were read stay until the last storage that lies in it is gone."""

    touched: list[tuple[int, int]]


@dataclass(eq=False)
class _Entry:
    """A storage that is alive. `number` is None where it was there before the ledger was started."""

    place: str
    bytes: int
    number: int | None
    address: int
    gone: "weakref.ref[Storage]"
    line: Line | None
    mapping: Mapping | None = None
    read: list[Span] = field(default_factory=list)


class Ledger:
    """Follows storages from the moment it is told of them until they are freed."""

    def __init__(self, source: str | None) -> None:
        """`source` is the file of the recipe: lines are lines of it."""
        self.events: list[Event] = []
        self._source = source
        self._entries: dict[int, _Entry] = {}
        self._numbers = count(1)
        self._next_address = 2**40
        # Threads load too; and a storage may go, which is heard at once, while another is being entered.
        self._lock = threading.RLock()

    def restart(self) -> None:
        """Forget what was written down; what is alive now counts no more."""
        self.events.clear()
        for entry in self._entries.values():
            entry.number = None
            if entry.mapping:
                entry.mapping.touched.clear()

    def place(self, storage: Storage) -> str | None:
        """Where a storage is; None if the ledger does not know it."""
        entry = self._entries.get(storage._cdata)
        return entry.place if entry else None

    def address(self, storage: Storage) -> int | None:
        """An address as the storage might have if it had bytes: no two that are alive have the same."""
        entry = self._entries.get(storage._cdata)
        return entry.address if entry else None

    def born(self, storage: Storage, place: str) -> None:
        """Follow a storage from now on."""
        with self._lock:
            entry = self._follow(storage, place)
            entry.number = self._came(place, entry.bytes, entry.line)

    def mapped(self, storage: Storage, mapping: Mapping) -> None:
        """Follow a storage that lies in a mapped file: of it counts what is read, see `touched`."""
        with self._lock:
            self._follow(storage, FILE).mapping = mapping

    def touched(self, storage: Storage, start: int, end: int) -> None:
        """These bytes of a mapped storage were read."""
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
        """A mapped file is gone, and with it the pages of the storages that were read."""
        for number, size in touched:
            self._went(FILE, number, size)

    def resized(self, storage: Storage) -> None:
        """Notice if a storage that is followed has changed its size: the new one is there before the old one goes."""
        entry = self._entries.get(storage._cdata)
        if entry and storage.nbytes() != entry.bytes:
            with self._lock:
                old, old_bytes = entry.number, entry.bytes
                entry.bytes = storage.nbytes()
                entry.number = self._came(entry.place, entry.bytes, self.asking_line())
                if old is not None:
                    self._went(entry.place, old, old_bytes)

    def cache_emptied(self, place: str) -> None:
        self.events.append(Event(place, -1, 0, None))

    def held_bytes(self, place: str) -> int:
        """What is alive in a place of what came since the ledger was started."""
        return sum(event.bytes for event in self.events if event.place == place)

    def asking_line(self) -> Line | None:
        """The line of the recipe that is being run."""
        frame = sys._getframe(1)
        while frame:
            if frame.f_code.co_filename == self._source:
                return Line(self._source, frame.f_lineno)
            frame = frame.f_back  # type: ignore[assignment]
        return None

    def _follow(self, storage: Storage, place: str) -> _Entry:
        key, size = storage._cdata, storage.nbytes()
        gone = weakref.ref(storage, lambda _: self._gone(key))
        entry = _Entry(place, size, None, self._next_address, gone, self.asking_line())
        # Where an allocator would put it: at a multiple of 512.
        self._next_address += max(-(-size // 512), 1) * 512
        self._entries[key] = entry
        return entry

    def _came(self, place: str, size: int, line: Line | None, number: int | None = None) -> int:
        """Write down a storage, or more of the one of that number."""
        number = next(self._numbers) if number is None else number
        if size:
            self.events.append(Event(place, number, size, line))
        return number

    def _went(self, place: str, number: int, size: int) -> None:
        if size:
            self.events.append(Event(place, number, -size, None))

    def _gone(self, key: int) -> None:
        with self._lock:
            entry = self._entries.pop(key)
            if entry.number is not None and entry.mapping is None:
                self._went(entry.place, entry.number, entry.bytes)


def in_place(events: Iterable[Event], place: str) -> list[Event]:
    return [event for event in events if event.place == place]


def _joined(spans: list[Span]) -> list[Span]:
    """The same bytes in spans that do not overlap."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined
