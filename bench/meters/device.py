"""What a kind of device must be able to tell about a load. A new kind is one file and one row."""

from dataclasses import dataclass
from typing import Protocol

import torch


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


class DeviceMeter(Protocol):
    """Counts what one device holds; `device` is what a strategy is given."""

    device: torch.device

    def start(self) -> None:
        """Free what is cached, reset the peaks, and remember what is held now as the level."""

    def peaks(self) -> DevicePeaks:
        """The peaks since `start`, above its level."""

    def held_bytes(self) -> int | None:
        """What live tensors hold now, above the level of `start`."""

    def free_bytes(self) -> int | None:
        """What the device could still hand out."""

    def synchronize(self) -> None:
        """Wait until the device has done all that was asked of it."""
