"""Reading parts of files in threads."""

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event, Lock

import torch

PAGE_BYTES = 4096


class ReadFailed(Exception):
    """The file, the byte at which reading it ended, and why."""


class Reader:
    """Reads parts of files to addresses; `direct`: past the page cache, whole pages to whole pages."""

    def __init__(self, files, direct):
        self.direct = direct
        flags = os.O_RDONLY | (os.O_DIRECT if direct else 0)
        self._descriptors = {}
        try:
            for file in files:
                self._descriptors[file.opened] = os.open(file.opened.name, flags)
        except OSError:
            self.close()
            raise

    def read(self, opened, start, end, address):
        """Read the bytes from `start` to `end`, and if `direct` those of the last page."""
        while start < end:
            size = -(-(end - start) // PAGE_BYTES) * PAGE_BYTES if self.direct else end - start
            try:
                count = os.preadv(self._descriptors[opened], [(ctypes.c_char * size).from_address(address)], start)
            except OSError as error:
                raise ReadFailed(opened, start, error.strerror) from error
            if not count:
                raise ReadFailed(opened, start, "the file ends there")
            start, address = start + count, address + count

    def read_runs(self, opened, ranges, part, _kind=None):
        """Read ranges of bytes, one behind the other, to a tensor of the host."""
        address = part.data_ptr()
        for start, end in ranges:
            self.read(opened, start, end, address)
            address += end - start

    def close(self):
        for descriptor in self._descriptors.values():
            os.close(descriptor)


@contextmanager
def started(fill, parts, threads):
    """Call `fill` with every one of `parts`, in threads that end with this block; gives a function that waits for them.

    One that fails stops the others.
    """
    waiting, turn, stop = iter(parts), Lock(), Event()

    def work():
        try:
            while not stop.is_set():
                with turn:
                    part = next(waiting, None)
                if part is None:
                    return
                fill(*part)
        except BaseException:
            stop.set()
            raise

    def finish(state_dict, storages):
        failures = [failure for thread in working if (failure := thread.exception())]
        unreadable = [failure for failure in failures if isinstance(failure, ReadFailed)]
        if not unreadable:
            for failure in failures:
                raise failure
            return
        # Of all that threads ran into, the first of the file is among them whenever anything is.
        error = min(unreadable, key=lambda failure: (failure.args[0].name, failure.args[1]))
        opened, byte, why = error.args
        of_file = (storage for record, storage in storages.items() if record.opened == opened and record.end > byte)
        broken = next(of_file, None)
        tensors = {name: t for name, t in state_dict.items() if isinstance(t, torch.Tensor)}
        names = [name for name, t in tensors.items() if t.untyped_storage() == broken]
        # Else it belongs to what a module keeps beside its tensors.
        names = names or [name for name in state_dict if name not in tensors]
        raise OSError(f"{opened.name}: {', '.join(names)} cannot be read: {why}") from error

    pool = ThreadPoolExecutor(threads)
    try:
        working = [pool.submit(work) for _ in range(threads)]
        yield finish
    finally:
        stop.set()
        pool.shutdown()
