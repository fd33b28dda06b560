"""Memory that the bytes of a checkpoint are read to: the last one they come to, or a ring on the way there."""

import ctypes
import mmap
from queue import SimpleQueue
from threading import Lock

import torch

from bench.strategies.reading.threads import PAGE_BYTES

HUGE_PAGE_BYTES = 2 * 2**20
# The memory of a tensor goes back to the system with its block: when the last tensor in that is gone.
BLOCK_BYTES = 256 * 2**20
# What is worth a call at least.
READ_PAGES = 1024
# What is converted on the host passes through so much memory.
CONVERTED_BYTES = 4 * 2**20
# Parts of a ring: while some are read, others are copied.
SLOTS = 16


def in_blocks(files, threads):
    """Host memory that is laid out as the files are, in huge pages where the system has them, and what to read to it.

    Fresh memory is filled several times faster so.
    """
    storages, parts, blocks = {}, [], []
    # After each a thread waits its turn in Python, for milliseconds while the skeleton is built: as few as go round.
    fair = sum(record.end - record.start for file in files for record in file.records.values()) // (4 * threads)
    step = max(fair // PAGE_BYTES, READ_PAGES) * PAGE_BYTES
    for record in (record for file in files for record in file.records.values()):
        if not blocks or blocks[-1][0].opened != record.opened or record.end - blocks[-1][0].start > BLOCK_BYTES:
            blocks.append([])
        blocks[-1].append(record)
    for block in blocks:
        # From a page on: what is read past the page cache has to be.
        opened, first, last = block[0].opened, block[0].start // PAGE_BYTES * PAGE_BYTES, block[-1].end
        size = -(-(last - first) // PAGE_BYTES) * PAGE_BYTES
        unit = HUGE_PAGE_BYTES if size > HUGE_PAGE_BYTES else PAGE_BYTES
        memory = torch.empty(size + unit, dtype=torch.uint8)
        # Where the first byte of the file would be.
        origin = -memory.data_ptr() % unit - first
        if hasattr(mmap, "MADV_HUGEPAGE"):
            # Advice: whether it is taken does not matter.
            address = ctypes.c_void_p(memory.data_ptr() + origin + first)
            ctypes.CDLL(None).madvise(address, ctypes.c_size_t(size), mmap.MADV_HUGEPAGE)
        for record in block:
            storages[record] = memory.untyped_storage()[origin + record.start : origin + record.end]
        parts += [
            (opened, start, min(start + step, last), memory.data_ptr() + origin + start)
            for start in range(first, last, step)
        ]
    return storages, parts


def of_their_own(files, kinds, dtype, device):
    """Memory on the device for every record: of its bytes, or of the dtype that its numbers are converted to."""
    targets = {}
    for record in (record for file in files for record in file.records.values()):
        kind = kinds.get(record, torch.uint8)
        size = (record.end - record.start) // kind.itemsize
        targets[record] = torch.empty(size, dtype=dtype if record in kinds else kind, device=device)
    return targets


def ring_bytes(most, size):
    """The size of the ring through which `size` bytes pass, `most` at most.

    It is no larger than they are, but for the powers of two that page-locked memory comes in, and two pages a slot.
    """
    return min(most, max(2 ** (size - 1).bit_length(), SLOTS * 2 * PAGE_BYTES))


class Ring:
    """Host memory in slots, which bytes pass through on their way to the device, or to another dtype.

    For CUDA it is page-locked, and copied from on a stream of its own: a slot is read to again when that is done.
    """

    def __init__(self, reader, device, most, size, threads):
        self._reader, self._cuda = reader, device.type == "cuda"
        slots = SLOTS if self._cuda else threads
        taken = ring_bytes(most if self._cuda else CONVERTED_BYTES, size)
        # Past the page cache a part may begin within a page.
        slot_bytes = max(taken // slots // PAGE_BYTES, 1 + reader.direct) * PAGE_BYTES
        self.step_bytes = slot_bytes - PAGE_BYTES * reader.direct
        self._slots, self._turn = SimpleQueue(), Lock()
        self._stream = torch.cuda.Stream(device) if self._cuda else None
        if self._cuda:
            # Whatever was to be done with the memory of the tensors before is done first.
            self._stream.wait_stream(torch.cuda.current_stream(device))
        # Page-locked memory begins with a page.
        spare = PAGE_BYTES if reader.direct and not self._cuda else 0
        ring = torch.empty(slots * slot_bytes + spare, dtype=torch.uint8, pin_memory=self._cuda)
        first = -ring.data_ptr() % PAGE_BYTES if spare else 0
        for slot in ring[first : first + slots * slot_bytes].split(slot_bytes):
            self._slots.put((slot, slot.data_ptr(), torch.cuda.Event() if self._cuda else None))

    def parts(self, targets, kinds):
        """A read: a file, the first byte and the one after the last, a part of a tensor, the dtype of what is read."""
        for record, target in targets.items():
            kind = kinds.get(record, torch.uint8)
            steps = target.split(self.step_bytes // kind.itemsize) if target.numel() else ()
            for start, part in zip(range(record.start, record.end, self.step_bytes), steps, strict=True):
                yield record.opened, start, min(start + self.step_bytes, record.end), part, kind

    def fill_runs(self, opened, ranges, part, kind):
        """Read ranges of bytes, one behind the other, and copy them to the part of a tensor.

        `kind` is the dtype of what is read; None: the part is one of bytes.
        """
        (start, end), *others = ranges
        self.fill(opened, start, end, part, kind or torch.uint8, others)

    def fill(self, opened, start, end, part, kind, others=()):  # noqa: PLR0913, PLR0917 - a part, as `parts` gives it
        """Read bytes, and copy them to the part of a tensor."""
        slot, address, copied = self._slots.get()
        try:
            if self._cuda:
                copied.synchronize()
            lead = start % PAGE_BYTES if self._reader.direct else 0
            self._reader.read(opened, start - lead, end, address)
            size = end - start
            for first, last in others:
                self._reader.read(opened, first, last, address + size)
                size += last - first
            source = slot if size == len(slot) else slot[lead : lead + size]
            if kind != torch.uint8:
                source = source.view(kind)
            if self._cuda:
                # One at a time: a conversion takes memory of the device.
                with self._turn, torch.cuda.stream(self._stream):
                    part.copy_(source, non_blocking=True)
                    copied.record()
            else:
                part.copy_(source)
        finally:
            self._slots.put((slot, address, copied))
            slot = source = None  # Not even an error is to keep them.

    def close(self):
        """Wait until all is copied, and give the memory back: page-locked memory would be kept for a next load."""
        if self._cuda:
            self._stream.synchronize()
        while not self._slots.empty():
            self._slots.get()
        if self._cuda:
            (getattr(torch.accelerator, "empty_host_cache", None) or torch._C._host_emptyCache)()  # noqa: SLF001
