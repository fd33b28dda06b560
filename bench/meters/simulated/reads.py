"""Reads of a file straight into memory in a plan, where the host's tensors have addresses at which nothing lies."""

import ctypes
import os
from collections.abc import Callable, Sequence
from io import FileIO
from typing import Any
from weakref import WeakKeyDictionary

from bench.meters.simulated.ledger import DEVICE_ADDRESSES, HOST_ADDRESSES
from bench.meters.simulated.storages import Replacement
from bench.strategies.reading.threads import Reader

# The most bytes that Linux reads in one call: see read(2).
MOST_READ_BYTES = 0x7FFFF000


def replacements() -> list[Replacement]:
    """Return the replacements of `os.preadv`, and of the suite's own reader, which calls it.

    Both refuse an address of the device by themselves, as they do CUDA's.
    """
    # Not every system has it.
    preadv = getattr(os, "preadv", None)
    if preadv is None:
        return []

    def read(descriptor: int, buffers: Sequence[Any], offset: int, *flags: int) -> int:
        """Read into buffers that are memory, and count for others the bytes that would be read."""
        real = [not HOST_ADDRESSES <= _address(buffer) < DEVICE_ADDRESSES for buffer in buffers]
        if all(real):
            return preadv(descriptor, buffers, offset, *flags)
        done, end = 0, os.fstat(descriptor).st_size
        for buffer, is_real in zip(buffers, real, strict=True):
            wanted, start = memoryview(buffer).nbytes, offset + done
            if is_real:
                done += preadv(descriptor, [buffer], start, *flags)
            else:
                done += max(0, min(wanted, end - start, MOST_READ_BYTES - done))
        return done

    # Nothing is read, so threads for every core would only wait for each other.
    return [(os, "preadv", read), (Reader, "read", _unread()), (os, "cpu_count", lambda: 1)]


def _unread() -> Callable[..., None]:
    """Return a replacement of `Reader.read` that makes no call where there is nothing to read to.

    A rank reads a matrix that is divided along its rows in a million parts: so many calls would take ten seconds.
    """
    original, sizes = Reader.read, WeakKeyDictionary[FileIO, int]()

    def read(reader: Reader, opened: FileIO, start: int, end: int, address: int) -> None:
        if HOST_ADDRESSES <= address < DEVICE_ADDRESSES:
            size = sizes.get(opened)
            if size is None:
                size = sizes[opened] = os.fstat(opened.fileno()).st_size
            if end <= size:
                return
        original(reader, opened, start, end, address)

    return read


def _address(buffer: Any) -> int:
    return ctypes.addressof((ctypes.c_char * 0).from_buffer(buffer))
