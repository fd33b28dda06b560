"""What a meter can tell about a load to one kind of device. A new kind is one file and one row."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from bench.meters.allocations import Alive
from bench.meters.host import HostMemory, read_pages
from bench.meters.timeline import Points


@dataclass(frozen=True)
class DevicePeaks:
    """The most a load had on the device at one time, in bytes above the level before it; None: not counted.

    `requested_bytes` is what live tensors asked for, `allocated_bytes` the blocks they got, `reserved_bytes`
    the segments the allocator took from the driver; `pinned_bytes` is page-locked host memory.
    """

    requested_bytes: int | None = None
    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    pinned_bytes: int | None = None


class DeviceMeter:
    """Counts what one device holds; `device` is what a strategy is given.

    As it is, it counts nothing, and is the meter of device `cpu`: a weight there is host memory like every other.
    """

    # Whether the host's memory is counted, since nothing of it is real: `host_peaks` and `host_held` say what it is.
    counts_host = False

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def watching(self) -> AbstractContextManager[object]:
        """What has to be in force while the load runs."""
        return nullcontext()

    def start(self) -> None:
        """Free what is cached, reset the peaks, and remember what is held now as the level."""

    def limit(self, count: int | None) -> None:
        """Have the device hand out no more than so many bytes above the level; what asks for more gets an error.

        None: as many as there are.
        """

    def peaks(self) -> DevicePeaks:
        """The peaks since `start`, above its level."""
        return DevicePeaks()

    def held_bytes(self) -> int | None:
        """What live tensors hold now, above the level of `start`."""
        return None

    def pinned_held_bytes(self) -> int | None:
        """Page-locked memory that live tensors hold now, above the level of `start`.

        None: there is none, or it is counted with private host memory.
        """
        return None

    def taken_bytes(self) -> int | None:
        """What is taken of the device now, above the level of `start`: by whomever, where its driver tells."""
        return self.held_bytes()

    def used_bytes(self) -> int | None:
        """What is taken of the device in all, as its driver tells any process; None: there is none to ask."""
        return None

    def free_bytes(self) -> int | None:
        """What the device could still hand out."""
        return None

    def synchronize(self) -> None:
        """Wait until the device has done all that was asked of it."""

    def read(self, storage: torch.UntypedStorage) -> None:
        """Read every page of a storage of the host."""
        read_pages(storage.data_ptr(), storage.nbytes())

    def host_peaks(self) -> HostMemory:
        """The most of the host's memory since `start`, where it is counted."""
        raise NotImplementedError

    def host_held(self) -> HostMemory:
        """What of the host's memory is held now, where it is counted."""
        raise NotImplementedError

    def alive(self) -> Alive:
        """What was alive at the peaks on the device, as `peaks` saw it last, and on the host, as far as is known."""
        return {}

    def points(self) -> Points:
        """What was held over time, from `start` until the peaks were asked for; to be asked for once, at the end."""
        return {}
