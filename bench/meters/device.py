"""The interface of a device meter, and the row that describes a kind of device.

The rows are in `bench/meters/devices.py`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from bench.meters.allocations import Alive
from bench.meters.allocator_settings import AllocatorSettings
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
    """Counts the memory of one device; a strategy is given `device`.

    This class counts nothing. It is the meter of device `cpu`, where a weight is host memory.
    """

    # True if the meter counts host memory too, in `host_peaks` and `host_held`, because none of it is real.
    counts_host = False

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def watching(self) -> AbstractContextManager[object]:
        """Return the context that the load runs in."""
        return nullcontext()

    def start(self) -> None:
        """Empty the caches, reset the peaks, and take the bytes that are held now as the level."""

    def limit(self, count: int | None) -> None:
        """Limit the device to `count` bytes above the level: requests beyond it raise. None removes the limit."""

    def peaks(self) -> DevicePeaks:
        """Return the peaks since `start`, above its level."""
        return DevicePeaks()

    def held_bytes(self) -> int | None:
        """Return the bytes of live tensors, above the level of `start`; None: not counted."""
        return None

    def pinned_held_bytes(self) -> int | None:
        """Return the page-locked bytes of live tensors, above the level of `start`.

        None: there is none, or it is counted with private host memory.
        """
        return None

    def taken_bytes(self) -> int | None:
        """Return the bytes taken of the device, above the level of `start`; a driver counts other allocators too."""
        return self.held_bytes()

    def used_bytes(self) -> int | None:
        """Return the bytes that all processes take of the device, as its driver tells; None: it has no driver."""
        return None

    def free_bytes(self) -> int | None:
        """Return the bytes that the device has left; None: it has no memory of its own to ask."""
        return None

    def synchronize(self) -> None:
        """Wait until the device has finished its work."""

    def read(self, storage: torch.UntypedStorage) -> None:
        """Read every page of a storage of the host."""
        read_pages(storage.data_ptr(), storage.nbytes())

    def host_peaks(self) -> HostMemory:
        """Return the peaks of host memory since `start`, where `counts_host`."""
        raise NotImplementedError

    def host_held(self) -> HostMemory:
        """Return the host memory that is held now, where `counts_host`."""
        raise NotImplementedError

    def alive(self) -> Alive:
        """Return the live allocations at the peaks of the last `peaks`, and at those of the host, as far as known."""
        return {}

    def points(self) -> Points:
        """Return the bytes over time, from `start` until `peaks` was called. Call it once, at the end."""
        return {}


@dataclass(frozen=True)
class MeterOptions:
    """Options of a device meter.

    `source` is the file of the recipe: the lines in explanations of peaks are its lines. `sim` and plans always
    explain their peaks. `explained` asks the other meters for it, which takes them time. `settings` are those of the
    simulated allocator, None: the environment's. `planned`: no tensor of the load has bytes.
    """

    source: str | None = None
    settings: AllocatorSettings | None = None
    planned: bool = False
    explained: bool = False


def _always(_: str) -> None:
    """Accept a device that every machine has."""


@dataclass(frozen=True)
class DeviceKind:
    """One kind of device: the answers to all questions that other rooms ask about it.

    `meter` makes its meter. A strategy is given a `torch.device` of type `torch_type`. `is_host`: weights on it are
    host memory. `has_values`: its tensors have values, not only sizes. `is_gpu`: it is driven by CUDA, whose context
    takes host memory. `is_numbered`: a machine may have several, `NAME:N`, and each rank takes its own. `is_plannable`:
    `--plan` computes its peaks. `roofline` is the row of `ROOFLINES` for loads to it from the page cache; None: their
    weights end on the host, and the row depends on where there. `require_present` raises `ValueError`, in one line, for
    a device that this machine lacks, `require_counts` for allocator settings under which its peaks are not counted.
    `note` explains the name in the help of `--device`.
    """

    name: str
    meter: Callable[[torch.device, MeterOptions], DeviceMeter]
    torch_type: str = "cpu"
    is_host: bool = False
    has_values: bool = True
    is_gpu: bool = False
    is_numbered: bool = False
    is_plannable: bool = False
    roofline: str | None = None
    require_present: Callable[[str], None] = _always
    require_counts: Callable[[], object] = lambda: None
    note: str = ""

    @property
    def spellings(self) -> tuple[str, ...]:
        """The names that `--device` takes for it."""
        return (self.name, f"{self.name}:N") if self.is_numbered else (self.name,)

    @property
    def help(self) -> str:
        """Its part of the help of `--device`."""
        return ", ".join(self.spellings) + (f" ({self.note})" if self.note else "")

    def torch_device(self, device: str) -> torch.device:
        """Return the device that a strategy is given for a name of this kind, such as `cuda:1`."""
        return torch.device(self.torch_type + device.removeprefix(self.name))
