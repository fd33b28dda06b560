"""The fastest way that this machine has to move the bytes of a checkpoint, measured beside the loads.

A load cannot end before its bytes are where they have to be. The time for that depends on where they come from and
where they end: see `ROOFLINES`.
"""

import mmap
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import FileIO
from math import inf
from pathlib import Path
from queue import SimpleQueue

import torch

from bench.meters.host import fresh_memory, touch_free_memory
from bench.meters.page_cache import evict

# The least and the most bytes of one read: each thread gets a few reads.
READ_BYTES = 4 * 2**20, 256 * 2**20
# Sizes of the buffers for reads from a disk, and for copies to a device.
BUFFER_BYTES = 4 * 2**20
PINNED_BYTES = 64 * 2**20

# From `madvise(2)`, since Linux 5.14; Python does not name it.
MADV_POPULATE_READ = 22

MEMORY = "memory"
MAPPING = "mapping"
PINNED = "pinned"
DISK = "disk"

THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class Roofline:
    """The roofline of some loads: `kind` is a row of `ROOFLINES`, `host_bytes` the free memory that the loads take."""

    kind: str
    files: tuple[Path, ...]
    device: torch.device
    host_bytes: int

    def bytes_per_second(self) -> float:
        """Return the speed of the machine just now."""
        return sum(map(_size, self.files)) / ROOFLINES[self.kind](self.files, self.device)

    def settle(self) -> None:
        """Touch the free memory that the loads take."""
        touch_free_memory(self.host_bytes)

    def prepare(self) -> float:
        """Put the machine into the state that every load starts in; return the speed of just before.

        That is one with memory at hand, and for the disk with nothing of the files in the page cache; otherwise they
        are taken to be in it.
        """
        self.settle()
        speed = self.bytes_per_second()
        if self.kind == DISK:
            evict(self.files)
        return speed


def into_fresh_memory(files: Sequence[Path], _: torch.device) -> float:
    """Return the seconds to read files from the page cache into memory that nobody has touched yet."""

    def read(file: FileIO, part: memoryview, place: int) -> None:
        with part:
            while count := os.preadv(file.fileno(), [part], place):
                part, place = part[count:], place + count

    with _opened(files, 0) as opened, ExitStack() as stack:
        start = time.perf_counter()
        parts = []
        step = min(max(sum(size for _, size in opened) // (4 * THREADS), READ_BYTES[0]), READ_BYTES[1])
        for file, size in opened:
            memory = stack.enter_context(memoryview(fresh_memory(size)))
            parts += [(file, memory[place : place + step], place) for place in range(0, size, step)]
        _in_threads(read, parts)
        return time.perf_counter() - start


def into_mapping(files: Sequence[Path], _: torch.device) -> float:
    """Return the seconds to map files, and to find every page of them in the page cache."""
    with _opened(files, 0) as opened, ExitStack() as stack:
        start = time.perf_counter()
        for file, size in opened:
            mapped = stack.enter_context(mmap.mmap(file.fileno(), size, mmap.MAP_PRIVATE, mmap.PROT_READ))
            try:
                mapped.madvise(MADV_POPULATE_READ)
            except OSError:
                with memoryview(mapped) as view:
                    view[:: mmap.PAGESIZE].tobytes()
        return time.perf_counter() - start


def from_pinned_memory(files: Sequence[Path], device: torch.device) -> float:
    """Return the seconds to copy as many bytes from page-locked memory to a CUDA device."""
    source = torch.ones(PINNED_BYTES, dtype=torch.uint8).pin_memory()
    target = torch.zeros(PINNED_BYTES, dtype=torch.uint8, device=device)
    sizes = [min(PINNED_BYTES, size - at) for size in map(_size, files) for at in range(0, size, PINNED_BYTES)]
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    for size in sizes:
        target[:size].copy_(source[:size], non_blocking=True)
    torch.cuda.synchronize(device)
    return time.perf_counter() - start


def from_disk(files: Sequence[Path], _: torch.device) -> float:
    """Return the seconds to read files that are not in the page cache: through it or past it, whichever is faster."""
    return min(_from_disk(files, 0), _past_the_page_cache(files))


def direct_is_faster(files: Sequence[Path]) -> bool:
    """Return True if a disk is read faster past the page cache, just now."""
    return _past_the_page_cache(files) < _from_disk(files, 0)


def _past_the_page_cache(files: Sequence[Path]) -> float:
    try:
        return _from_disk(files, os.O_DIRECT)
    except (AttributeError, OSError):  # Not every system has it, nor every file system.
        return inf


def _from_disk(files: Sequence[Path], flags: int) -> float:
    evict(files)
    buffers = SimpleQueue[mmap.mmap]()
    for _ in range(THREADS):
        buffers.put(fresh_memory(BUFFER_BYTES))

    def read(file: FileIO, place: int, size: int) -> None:
        buffer = buffers.get()
        try:
            # A read from a file on a disk is short only at its end.
            if os.preadv(file.fileno(), [buffer], place) < min(BUFFER_BYTES, size - place):
                raise OSError(f"{file.name} was not read as a whole")
        finally:
            buffers.put(buffer)

    with _opened(files, flags) as opened:
        start = time.perf_counter()
        _in_threads(read, [(file, place, size) for file, size in opened for place in range(0, size, BUFFER_BYTES)])
        return time.perf_counter() - start


# Which of them a load is held against: by where its weights end, and by what the page cache has of them before.
ROOFLINES: dict[str, Callable[[Sequence[Path], torch.device], float]] = {
    MEMORY: into_fresh_memory,
    MAPPING: into_mapping,
    PINNED: from_pinned_memory,
    DISK: from_disk,
}


def _size(file: Path) -> int:
    return file.stat().st_size


@contextmanager
def _opened(files: Sequence[Path], flags: int) -> Iterator[list[tuple[FileIO, int]]]:
    """Yield files, open, with their sizes."""
    with ExitStack() as stack:
        yield [
            (stack.enter_context(FileIO(os.open(file, os.O_RDONLY | flags))), _size(file))
            for file in files
            if _size(file)
        ]


def _in_threads(function: Callable[..., object], calls: Iterable[tuple[object, ...]]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(function, *arguments) for arguments in calls]:
            done.result()
