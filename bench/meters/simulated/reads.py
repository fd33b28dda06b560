"""Reads of a file straight into memory in a plan, where the host's tensors have addresses at which nothing lies."""

import ctypes
import os
from collections.abc import Sequence
from typing import Any

from bench.meters.simulated.ledger import DEVICE_ADDRESSES, HOST_ADDRESSES
from bench.meters.simulated.storages import Replacement

# The most bytes that Linux reads in one call: see read(2).
MOST_READ_BYTES = 0x7FFFF000


def replacements() -> list[Replacement]:
    """Return the replacement of `os.preadv`. An address of the device it refuses by itself, as it does CUDA's."""
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
    return [(os, "preadv", read), (os, "cpu_count", lambda: 1)]


def _address(buffer: Any) -> int:
    return ctypes.addressof((ctypes.c_char * 0).from_buffer(buffer))
