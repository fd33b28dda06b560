"""Host memory of a process: the bytes that it holds now, and their peak.

Private memory is anonymous pages and shared memory, which the kernel cannot reclaim. File-backed memory is resident
pages of mapped files, which the kernel reclaims under pressure. Their sum cannot rank loads that map the checkpoint,
so the two are kept apart. A checkpoint in a tmpfs is shared memory that was there before: its pages count as
file-backed.

Sources: `Documentation/filesystems/proc.rst` of Linux, under `/proc/PID/status` and `/proc/PID/clear_refs`.
"""

import ctypes
import gc
import mmap
import os
import re
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path

import psutil

from bench.meters.shared_memory import older_bytes

PAGE_BYTES = 4096

# From glibc's `malloc.h`: the size from which a block is a mapping of its own.
M_MMAP_THRESHOLD = -3
LARGE_BLOCK_BYTES = 256 * 2**10

# Bytes that one thread touches at a time.
TOUCHED_BYTES = 64 * 2**20
# Linux hands free memory to the host two seconds after some was freed (`mm/page_reporting.c`), and then that of after
# it too. What is freed later stays for two seconds, which is long enough for a load; little memory is loaded before.
REPORTING_SECONDS = 2.5
LITTLE_BYTES = 2 * 2**30

# Linux tells here what a process holds; other systems have no such folder.
PROC = Path("/proc")
VIRTIO = Path("/sys/bus/virtio/devices")
# From the virtio specification: the number of a memory balloon, and its feature of free page reporting.
BALLOON, REPORTING = "0x0005", 5

_FIELDS = re.compile(rb"^(VmHWM|RssAnon|RssFile|RssShmem):\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True)
class HostMemory:
    """Bytes of one process; None where the system does not tell.

    `total_peak_bytes` is the kernel's own high-water mark of the total, exact since the last `reset_peak`.
    `outside_bytes` are private memory outside of the process. In a peak they are the bytes by which both together were
    higher.
    """

    private_bytes: int | None
    file_bytes: int | None
    total_bytes: int
    total_peak_bytes: int | None
    outside_bytes: int = 0

    @property
    def whole_bytes(self) -> int | None:
        """Private memory, in the process and outside of it."""
        return None if self.private_bytes is None else self.private_bytes + self.outside_bytes

    def above(self, level: "HostMemory") -> "HostMemory":
        """Return the bytes that came after `level` was read; figures that shrank count as 0."""
        return HostMemory(
            _above(self.private_bytes, level.private_bytes),
            _above(self.file_bytes, level.file_bytes),
            max(0, self.total_bytes - level.total_bytes),
            _above(self.total_peak_bytes, level.total_bytes),
            max(0, self.outside_bytes - level.outside_bytes),
        )

    def peak_with(self, other: "HostMemory") -> "HostMemory":
        """Return the larger of each figure."""
        private, whole = _larger(self.private_bytes, other.private_bytes), _larger(self.whole_bytes, other.whole_bytes)
        return HostMemory(
            private,
            _larger(self.file_bytes, other.file_bytes),
            max(self.total_bytes, other.total_bytes),
            _larger(self.total_peak_bytes, other.total_peak_bytes),
            _above(whole, private) or 0,
        )


def _above(value: int | None, level: int | None) -> int | None:
    return None if value is None or level is None else max(0, value - level)


def _larger(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else max(one, other)


def lines_of(file: Path) -> list[str]:
    """Return the lines of a file of `/proc`, which may name paths in any encoding."""
    return os.fsdecode(file.read_bytes()).splitlines()


@contextmanager
def memory_reader(pid: int, since: float | None = None) -> Iterator[Callable[[], HostMemory]]:
    """Yield a function that reads the memory of process `pid`, fast enough to be called every half a millisecond.

    Files of shared memory that are older than `since`, in seconds since the epoch, count as file-backed; None: older
    than this call. The function raises `ProcessLookupError` when the process is gone.
    """
    status = PROC / str(pid) / "status"
    if not status.exists():
        yield partial(_read_psutil, pid)
        return
    with status.open("rb", buffering=0) as file:
        yield partial(_read_status, file.fileno(), pid, OlderShared(pid, time.time() if since is None else since))


def _read_status(descriptor: int, pid: int, older: "OlderShared") -> HostMemory:
    fields = _fields(descriptor, pid)
    if older.looked(fields[b"RssShmem"]):
        # Shared memory that was released meanwhile was not seen.
        fields = min(fields, _fields(descriptor, pid), key=itemgetter(b"RssShmem"))
    in_files = older.bytes_of(fields[b"RssShmem"])
    private, file = fields[b"RssAnon"] + fields[b"RssShmem"] - in_files, fields[b"RssFile"] + in_files
    return HostMemory(private, file, private + file, fields[b"VmHWM"])


def _fields(descriptor: int, pid: int) -> dict[bytes, int]:
    fields = {name: 1024 * int(kib) for name, kib in _FIELDS.findall(os.pread(descriptor, 8192, 0))}
    # A process that has ended, but whose exit status nobody has read, has no memory lines.
    if b"RssAnon" not in fields:
        raise ProcessLookupError(pid)
    return fields


class OlderShared:
    """The shared memory of a process that belongs to files older than it: a checkpoint in a tmpfs.

    To read all mappings takes milliseconds. So they are read when shared memory has changed, and while such files are
    mapped at most half of the time: what comes in between counts as theirs.
    """

    def __init__(self, pid: int, since: float) -> None:
        self._pid, self._since = pid, since
        self._shared, self._due, self._is_sure = 0, 0.0, True
        self._older: int | None = None

    def looked(self, shared: int) -> bool:
        """Read the mappings, if it is time to; `shared` are the bytes of shared memory that are resident now."""
        same = shared == self._shared
        if same and self._is_sure:
            return False
        start = time.monotonic()
        if self._older is not None and start < self._due:
            return False
        older, made = older_bytes(self._pid, self._since), self._shared - (self._older or 0)
        # The kernel takes a mapping away first, and its pages then: these have not become the load's.
        self._is_sure = same or shared > self._shared or shared - (older or 0) <= made
        self._shared, self._older = shared, older if self._is_sure else max(0, shared - made)
        self._due = 2 * time.monotonic() - start
        return True

    def bytes_of(self, shared: int) -> int:
        """Return how many of them are of older files."""
        return 0 if self._older is None else min(shared, max(0, self._older + shared - self._shared))


def _read_psutil(pid: int) -> HostMemory:
    try:
        return HostMemory(None, None, psutil.Process(pid).memory_info().rss, None)
    except psutil.NoSuchProcess as error:
        raise ProcessLookupError(pid) from error


def bytes_read(pid: int | None = None) -> int | None:
    """Return the bytes that a process got from calls that read files; None where the system does not tell.

    `pid` None: this process. Bytes count whether from a disk or from the page cache. Mapped files and sockets do not
    count: `rchar` of `/proc/PID/io`.
    """
    file = PROC / str(pid or "self") / "io"
    try:
        return int(file.read_bytes().split(b"rchar: ", 1)[1].split(None, 1)[0])
    except (OSError, IndexError):
        return None


def reset_peak() -> None:
    """Set this process's `VmHWM` back to what it holds now, where the system can."""
    clear_refs = PROC / "self" / "clear_refs"
    if clear_refs.exists():
        clear_refs.write_text("5", encoding="utf-8")


def give_back_at_once() -> None:
    """Make this process's allocator return the memory of every freed tensor, instead of keeping some of it.

    How much glibc keeps differs from run to run, and was seen to reach 0.3 of a model's bytes: small objects settle
    in the gap that a tensor left, and the next tensor of that size no longer fits.
    """
    # Only glibc has it; other allocators give large blocks back by themselves.
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)


def fresh_memory(size: int) -> mmap.mmap:
    """Return memory that nobody has touched yet, in huge pages where the system has them."""
    # Shared memory, Python's default, would come in small pages: to fill those takes several times as long.
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def touch_free_memory(size: int) -> None:
    """Take `size` bytes of free memory, write to every page of it, and give it back.

    The host of a virtual machine may have taken back memory that was free for some seconds, and to get it again takes
    ten times as long as to fill it. Without this that would be measured now and then, instead of a load.
    """
    if not size:
        return
    start = time.monotonic()
    with fresh_memory(size) as memory, ThreadPoolExecutor(os.cpu_count()) as pool:
        first = ctypes.c_char.from_buffer(memory)
        address = ctypes.addressof(first)

        def write(place: int) -> None:
            ctypes.memset(address + place, 1, min(TOUCHED_BYTES, size - place))

        list(pool.map(write, range(0, size, TOUCHED_BYTES)))
        if size > LITTLE_BYTES and reports_free_memory():
            time.sleep(max(0.0, start + REPORTING_SECONDS - time.monotonic()))
            # A processor that has just slept fills memory a fifth slower.
            list(pool.map(write, range(0, size, TOUCHED_BYTES)))
        del first  # It keeps the memory open.


def reports_free_memory() -> bool:
    """Return True on a virtual machine that hands free memory back to its host by itself."""
    return any(
        (device / "device").read_text(encoding="utf-8").strip() == BALLOON
        and (device / "features").read_text(encoding="utf-8")[REPORTING] == "1"
        for device in VIRTIO.glob("*")
    )


def file_backed(addresses: Iterable[int]) -> list[bool]:
    """Return for each address of this process True if it is in a mapping of a file, and False if it is in no mapping.

    Raises `OSError` where the system does not tell.
    """
    mapped: list[tuple[int, int]] = []
    for line in lines_of(PROC / "self" / "maps"):
        extent, _, _, _, inode, *_ = line.split(maxsplit=5)
        if inode != "0":
            start, end = (int(place, 16) for place in extent.split("-"))
            mapped.append((start, end))
    starts = [start for start, _ in mapped]

    def is_mapped(address: int) -> bool:
        place = bisect_right(starts, address) - 1
        return place >= 0 and address < mapped[place][1]

    return [is_mapped(address) for address in addresses]


def read_pages(address: int, size: int) -> None:
    """Read a byte of every page of `size` bytes of memory."""
    if size:
        content = (ctypes.c_char * size).from_address(address)
        memoryview(content).cast("B")[::PAGE_BYTES].tobytes()


def release_memory() -> None:
    """Give back to the system what this process freed but its allocators still hold."""
    gc.collect()
    # Only glibc has it; other allocators give large blocks back by themselves.
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
