"""Memory that a load holds outside of its process: of the processes that it started, and shared memory.

It takes the machine's memory like the load's own. What the load's process maps of it is part of its own memory: that is
not counted here again.
"""

import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.meters import shared_memory
from bench.meters.host import HostMemory
from bench.meters.process_tree import below, parent_of
from bench.meters.shared_memory import PROC, Key, Mapped

# Between two looks. A look takes longer where there are processes: then so long as that at least.
LOOK_SECONDS = 0.005
# Time for processes to end after they were told to.
GRACE_SECONDS = 0.5

_FIELDS = re.compile(rb"^(Private_Clean|Private_Dirty|Anonymous|Pss_Shmem): +(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True)
class OutsideMemory:
    """Memory held outside of a process: the private bytes of other processes, by their number, and shared memory."""

    processes: Mapping[int, int] = field(default_factory=dict)
    shared: Mapping[Key, int] = field(default_factory=dict)

    @property
    def process_bytes(self) -> int:
        return sum(self.processes.values())

    @property
    def shared_bytes(self) -> int:
        return sum(self.shared.values())


class OutsideWatcher:
    """Looks now and then at what a load holds outside of process `pid`, and knows what it has seen of it.

    `since` is when the load's process was started, in seconds since the epoch: older shared memory is not the load's.
    """

    def __init__(self, pid: int, since: float) -> None:
        self._pid, self.since = pid, since
        self._due, self._whole = 0.0, 0
        self._parents: dict[int, int] = {pid: 0}
        self._paths: dict[Key, Path] = {}
        self._unopened: dict[Key, int] = {}

    def whole(self, read_memory: Callable[[], HostMemory]) -> HostMemory:
        """Return what `read_memory` does of the load's process, with what is held outside of it.

        Between two looks both together are what they were at the last: what moves from the one to the other is not
        counted twice.
        """
        memory, start = read_memory(), time.monotonic()
        private = memory.private_bytes or 0
        if start >= self._due:
            outside = self.look()
            self._whole = min(private, read_memory().private_bytes or 0) + outside
            self._due = time.monotonic() + max(LOOK_SECONDS, time.monotonic() - start)
        return replace(memory, outside_bytes=max(0, self._whole - private))

    def again(self, read_memory: Callable[[], HostMemory]) -> HostMemory:
        """Return the same, of now."""
        self._due = 0.0
        return self.whole(read_memory)

    def look(self) -> int:
        """Return what is held now.

        What processes map is read last: they may map meanwhile what was counted already, and not be counted for it.
        """
        processes, shared = self._others()
        private = sum(processes.values())
        own = self._mapped(self._pid)
        if own is None:
            return private + sum(shared.values())
        self._note(shared, {self._pid: own})
        # The kernel takes a mapping away first, and its pages then: these are still counted as the process's own.
        going = 0
        with suppress(OSError):
            going = max(0, _resident_shared(self._pid) - sum(own.shared.values()))
        return private + max(0, sum(max(0, count - own.shared.get(key, 0)) for key, count in shared.items()) - going)

    def left(self) -> OutsideMemory:
        """Return what is left when the load is done: its processes, and the shared memory that has a name or is open.

        What it maps itself is part of its own memory.
        """
        until = time.monotonic() + GRACE_SECONDS
        while self._below() and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
        processes, shared = self._others()
        with suppress(OSError):
            own = shared_memory.mapped_names(self._pid)
            shared = {key: count for key, count in shared.items() if key not in own}
        return OutsideMemory(processes, shared)

    def _others(self) -> tuple[dict[int, int], dict[Key, int]]:
        """Return the private bytes of the processes that the load started, and the shared memory of all.

        What processes share with each other, and not with the load, counts as the first one's.
        """
        pids = self._below()
        shared, rolled_up = self._held(pids), {pid: _rolled_up(pid) for pid in pids}
        maps = self._maps(pids)
        self._note(shared, maps)
        processes = {pid: one.private_bytes(maps.get(pid)) for pid, one in rolled_up.items()}
        if pids and self._forked_twice:
            processes[pids[0]] += common_bytes(self._pid, pids)
        return processes, shared

    def named(self) -> dict[Key, int]:
        """Return the shared memory that is there without a process: files that were seen, and segments."""
        return shared_memory.held(self._paths) | shared_memory.segments(self._parents)

    def remove(self, before: Collection[str]) -> None:
        """Remove it, unless it was there `before`."""
        shared_memory.remove(self._paths, self._parents, before)

    def _below(self) -> list[int]:
        pids = below(self._pid)
        for pid in pids:
            if pid not in self._parents:
                self._parents[pid] = parent_of(pid)
        return pids

    @property
    def _forked_twice(self) -> bool:
        """True if a process that the load started has started another: they may share what the load does not have."""
        return any(parent in self._parents and parent != self._pid for parent in self._parents.values())

    def _maps(self, pids: Sequence[int]) -> dict[int, Mapped]:
        return {pid: found for pid in pids if (found := self._mapped(pid))}

    def _mapped(self, pid: int) -> Mapped | None:
        """Return what a process maps of shared memory; None: it cannot be read, or has ended."""
        with suppress(OSError):
            if self._unopened or _resident_shared(pid):
                return shared_memory.mapped(pid)
            return Mapped({}, {})
        return None

    def _held(self, pids: Sequence[int]) -> dict[Key, int]:
        """Return the shared memory that is open, or has a name."""
        shared = dict[Key, int]()
        for pid in (self._pid, *pids):
            for key, path, count in shared_memory.opened(pid, self.since):
                shared[key], self._paths[key] = count, path
        return shared | self.named()

    def _note(self, shared: dict[Key, int], maps: Mapping[int, Mapped]) -> None:
        """Add what processes map of the shared memory that the load has made, and nobody has open.

        Each tells of the pages that it has touched. They stay for as long as anybody maps it.
        """
        for found in maps.values():
            for key, count in found.shared.items():
                if key not in shared and not shared_memory.was_there(key, found.paths[key], self.since):
                    self._paths[key] = found.paths[key]
                    shared[key] = self._unopened[key] = max(self._unopened.get(key, 0), count)


def _resident_shared(pid: int) -> int:
    """Return the bytes of shared memory that a process has touched, as the kernel counts them."""
    status = (PROC / str(pid) / "status").read_bytes()
    return 1024 * int(status.split(b"\nRssShmem:", 1)[1].split(None, 1)[0]) if b"\nRssShmem:" in status else 0


@dataclass(frozen=True)
class _MemoryRollup:
    """Bytes of a process, as the kernel tells.

    Of anonymous memory, of all memory that no other process has, and its share of shared memory: what it has alone of
    that, and a part of the rest.
    """

    anonymous_bytes: int = 0
    alone_bytes: int = 0
    shared_share_bytes: int = 0

    def private_bytes(self, maps: Mapped | None) -> int:
        """Return what it has alone of anonymous memory; without what it `maps`, it has ended meanwhile."""
        if not maps:
            return 0
        # What it had of shared memory may be gone from its mappings: then its share tells of it.
        common = sum(maps.shared.values()) - maps.alone_bytes
        shared_alone = max(maps.alone_bytes, self.shared_share_bytes - common)
        return max(0, min(self.anonymous_bytes, self.alone_bytes - shared_alone))


def _rolled_up(pid: int) -> _MemoryRollup:
    """Return nothing of a process that cannot be read."""
    with suppress(OSError, KeyError):
        rollup = (PROC / str(pid) / "smaps_rollup").read_bytes()
        fields = {name: 1024 * int(kib) for name, kib in _FIELDS.findall(rollup)}
        alone = fields[b"Private_Clean"] + fields[b"Private_Dirty"]
        # Linux tells the last since 5.3.
        return _MemoryRollup(fields[b"Anonymous"], alone, fields.get(b"Pss_Shmem", 0))
    return _MemoryRollup()


def common_bytes(load: int, others: Sequence[int]) -> int:
    """Return the memory that processes share by a fork, where the load's own process has none."""
    found = dict[int, int]()
    with suppress(OSError):
        own = shared_memory.stretches(load)
        for start, end, count in (stretch for one in others for stretch in shared_memory.stretches(one)):
            inside = sum(max(0, min(end, last) - max(start, first)) for first, last, _ in own)
            found[start] = max(found.get(start, 0), min(count, end - start - inside))
    return sum(found.values())
