"""Fixtures of the simulation's tests: a simulated device, and small things to put onto it."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.meters.allocations import sum_peak
from bench.meters.allocator_settings import AllocatorSettings
from bench.meters.simulated.allocator import CachingAllocator
from bench.meters.simulated.blocks import Block
from bench.meters.simulated.ledger import FILE, HOST, PINNED, Ledger, in_place
from bench.meters.simulated.simulated_device import SimulatedDevice
from bench.meters.simulated.simulation import simulation

DEFAULT = AllocatorSettings()
CUDA = torch.device("cuda")
DEVICE = "cuda:0"
PLACES = (DEVICE, HOST, FILE, PINNED)

# The bytes of `linear()`: 32 of weight, 16 of bias.
LINEAR_BYTES = 48


@pytest.fixture(params=[False, True], ids=["sim", "plan"])
def planned(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture
def world(request: pytest.FixtureRequest, planned: bool) -> Iterator[SimulatedDevice]:
    """A simulation around the test, in which nothing is left when it ends."""
    with simulation(Ledger(str(request.path)), planned=planned) as world:
        yield world
    if any(world.ledger.held_bytes(place) for place in PLACES):
        gc.collect()
    for place in PLACES:
        assert world.ledger.held_bytes(place) == 0, place


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Two tensors that share a storage of 400 bytes, and one of 40."""
    whole = torch.arange(100, dtype=torch.float32)
    torch.save({"whole": whole, "half": whole[50:], "own": torch.ones(10)}, tmp_path / "checkpoint.pt")
    return tmp_path / "checkpoint.pt"


def linear() -> nn.Linear:
    return nn.Linear(2, 4).requires_grad_(False)


def peak(world: SimulatedDevice, place: str = DEVICE) -> int:
    return sum_peak(in_place(world.ledger.events, place)).bytes


def held(world: SimulatedDevice) -> int:
    return world.ledger.held_bytes(DEVICE)


def numbers(count: int, **options: Any) -> Tensor:
    return torch.ones(count, dtype=torch.float32, **options)


def figures(allocator: CachingAllocator) -> tuple[int, int, int]:
    """Return its requested, allocated and reserved bytes."""
    return allocator.requested_bytes, allocator.allocated_bytes, allocator.reserved_bytes


def limited(
    capacity: int, *requests: int, settings: AllocatorSettings = DEFAULT
) -> tuple[CachingAllocator, list[Block]]:
    allocator = CachingAllocator(settings, capacity)
    return allocator, [allocator.allocate(request) for request in requests]
