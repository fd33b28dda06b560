"""The page cache: which pages of a file are in it, and how to get them out."""

import ctypes
import mmap
import os
import time
from collections.abc import Iterable
from pathlib import Path

# Bytes examined at once: of a file larger than the machine's memory the kernel maps no more in one piece.
WINDOW_BYTES = 2**30

# Time for pages that are about to be written back or released.
PATIENCE_SECONDS = 5.0


class StillCached(Exception):
    """Pages of a file that could not be evicted."""


def evict(files: Iterable[Path]) -> None:
    """Have the kernel drop what it has cached of these files; raises `StillCached` unless every page is gone."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            _evict(file, descriptor)
        finally:
            os.close(descriptor)


def _evict(file: Path, descriptor: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    # Pages that are not on the disk yet cannot be dropped.
    os.fsync(descriptor)
    while True:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        if not (resident := resident_bytes(descriptor)):
            return
        if time.monotonic() > deadline:
            raise StillCached(
                f"{resident:,} bytes of {file.name} stay in the page cache: a process has mapped the file, or its file "
                f"system is in memory; end that process, or name another folder with --checkpoint-dir"
            )
        time.sleep(0.05)


def resident_bytes(descriptor: int) -> int:
    """Return the bytes of an open file that are in the page cache, in whole pages, as `mincore(2)` tells."""
    size = os.fstat(descriptor).st_size
    return sum(
        _resident_pages(descriptor, start, min(WINDOW_BYTES, size - start)) * mmap.PAGESIZE
        for start in range(0, size, WINDOW_BYTES)
    )


def _resident_pages(descriptor: int, start: int, size: int) -> int:
    # Writable and private, or Python would not tell its address; nobody writes.
    with mmap.mmap(descriptor, size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE, offset=start) as window:
        first = ctypes.c_char.from_buffer(window)
        found = ctypes.create_string_buffer(-(-size // mmap.PAGESIZE))
        failed = ctypes.CDLL(None, use_errno=True).mincore(
            ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(size), found
        )
        del first  # It keeps the window open.
        if failed:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        # Only the lowest bit of each byte says anything.
        return sum(page & 1 for page in found.raw) if any(found.raw) else 0
