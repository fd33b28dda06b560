"""A simulated device that has so much memory and no more."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from bench.meters.allocator_settings import AllocatorSettings
from bench.meters.simulated.capacity import limit
from bench.meters.simulated.conftest import CUDA, DEVICE, held, peak
from bench.meters.simulated.ledger import in_place
from bench.meters.simulated.peaks import device_peaks
from bench.meters.simulated.simulated_device import SimulatedDevice

MIB = 2**20
DEFAULT = AllocatorSettings()


def floats(mib: float, device: Any = CUDA) -> torch.Tensor:
    return torch.empty(int(mib * MIB) // 4, dtype=torch.float32, device=device)


WAYS: dict[str, Callable[[], Any]] = {
    "created": lambda: floats(30),
    "moved": lambda: floats(30, "cpu").to(CUDA),
    "a module": lambda: torch.nn.Linear(1, 30 * MIB // 4, bias=False, device="cpu").to(CUDA),
    "cloned": lambda: floats(12).repeat(3),
    "as a storage": lambda: torch.UntypedStorage(30 * MIB, device=CUDA),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_does_not_fit_raises_what_cuda_does_and_takes_nothing(world: SimulatedDevice, way: str) -> None:
    limit(world.ledger, DEVICE, DEFAULT, 40 * MIB)
    kept = floats(20)
    with pytest.raises(
        torch.OutOfMemoryError, match=r"^CUDA out of memory. Tried to allocate 3[06].00 MiB. GPU 0 has a "
    ):
        WAYS[way]()
    assert held(world) in (20 * MIB, 32 * MIB)
    del kept
    assert WAYS["created"]() is not None


def test_it_is_told_what_was_asked_for_and_what_is_taken(world: SimulatedDevice) -> None:
    limit(world.ledger, DEVICE, DEFAULT, 2**30)
    kept = [floats(1000), floats(9)]
    with pytest.raises(torch.OutOfMemoryError) as caught:
        floats(100)
    assert str(caught.value) == (
        "CUDA out of memory. Tried to allocate 100.00 MiB. GPU 0 has a total capacity of 1024.00 MiB of which 4.00 MiB "
        "is free. 1024.00 MiB allowed; Of the allocated memory 1009.00 MiB is allocated by PyTorch, and 11.00 MiB is "
        "reserved by PyTorch but unallocated."
    )
    del kept


# In MiB: the limit, what is there, what is asked for; then what torch 2.14.1's allocator says that it tried to
# allocate, is allowed, has allocated, and holds unallocated.
SAID = [
    (30, [20], 9, "20.00 MiB", "30.00 MiB", "20.00 MiB", "0 bytes"),
    (30, [20], 10.5, "12.00 MiB", "30.00 MiB", "20.00 MiB", "0 bytes"),
    (24, [20, *[0.9] * 4], 0.9, "2.00 MiB", "24.00 MiB", "23.60 MiB", "408.00 KiB"),
    (28, [], 28.4, "30.00 MiB", "28.00 MiB", "0 bytes", "0 bytes"),
]


@pytest.mark.parametrize(("mib", "there", "asked", "tried", "allowed", "allocated", "unallocated"), SAID)
def test_the_segment_is_named_that_was_asked_for(
    world: SimulatedDevice,
    mib: int,
    there: list[float],
    asked: float,
    tried: str,
    allowed: str,
    allocated: str,
    unallocated: str,
) -> None:
    limit(world.ledger, DEVICE, DEFAULT, mib * MIB)
    kept = [floats(one) for one in there]
    with pytest.raises(torch.OutOfMemoryError) as caught:
        floats(asked)
    assert f"Tried to allocate {tried}. " in str(caught.value)
    assert f" {allowed} allowed; Of the allocated memory {allocated} is allocated by PyTorch, " in str(caught.value)
    assert f" and {unallocated} is reserved by PyTorch but unallocated." in str(caught.value)
    del kept


def test_the_host_is_not_limited(world: SimulatedDevice) -> None:
    limit(world.ledger, DEVICE, DEFAULT, MIB)
    assert floats(30, "cpu").nbytes == 30 * MIB


def test_what_was_cached_is_gone_in_the_record_too(world: SimulatedDevice) -> None:
    """A recipe that catches the error goes on: what is counted afterwards is what its allocator has."""
    limit(world.ledger, DEVICE, DEFAULT, 40 * MIB)
    floats(20)
    kept = floats(12)
    with pytest.raises(torch.OutOfMemoryError):
        floats(39)
    peaks = device_peaks(in_place(world.ledger.events, DEVICE), DEFAULT, 40 * MIB)
    assert peaks["requested"].bytes == peak(world) == 20 * MIB
    assert peaks["reserved"].bytes <= 40 * MIB
    del kept


def test_the_device_says_what_it_has_left(world: SimulatedDevice) -> None:
    """The driver and the allocator tell it: transformers asks both, and takes at once what it will need."""
    limit(world.ledger, DEVICE, DEFAULT, 100 * MIB)
    assert torch.cuda.mem_get_info() == (100 * MIB, 100 * MIB)
    kept = [floats(30), floats(0.5)]
    # Segments of 30 MiB, and of 2 MiB for what is small.
    assert (torch.cuda.memory_reserved(), torch.cuda.memory.memory_reserved("cuda:0")) == (32 * MIB, 32 * MIB)
    assert torch.cuda.mem_get_info(0) == (68 * MIB, 100 * MIB)
    del kept
    assert torch.cuda.memory_reserved() == 32 * MIB
    torch.cuda.empty_cache()
    assert torch.cuda.mem_get_info("cuda") == (100 * MIB, 100 * MIB)


def test_a_device_without_a_limit_has_room_for_whatever_is_loaded(world: SimulatedDevice) -> None:
    kept = floats(30)
    free, total = torch.cuda.mem_get_info()
    assert total - free == torch.cuda.memory_reserved() == kept.nbytes
    assert free > 2**50
