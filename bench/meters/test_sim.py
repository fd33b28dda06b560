"""The meter of the simulated device: page-locked memory."""

import os
from pathlib import Path

import pytest
import torch

from bench.meters.allocator_settings import AllocatorSettings
from bench.meters.device import DevicePeaks
from bench.meters.host import HostMemory, memory_reader
from bench.meters.sim import SimMeter

MIB = 2**20


def meter(device: str = "cuda", *, planned: bool = True) -> SimMeter:
    return SimMeter(torch.device(device), __file__, AllocatorSettings(), planned=planned)


@pytest.mark.parametrize("planned", [False, True])
def test_page_locked_memory_is_told_in_blocks(planned: bool) -> None:
    sim = meter(planned=planned)
    with sim.watching():
        sim.start()
        torch.ones(10, device="cuda")
        assert sim.peaks().pinned_bytes == 0
        ring = torch.empty(5 * MIB, dtype=torch.uint8, pin_memory=True)
        assert sim.peaks() == DevicePeaks(40, 512, 2 * MIB, 8 * MIB)
        del ring


def test_where_the_device_is_the_host_nothing_is_told() -> None:
    sim = meter("cpu")
    with sim.watching():
        sim.start()
        torch.empty(5, dtype=torch.uint8, pin_memory=True)
        assert sim.peaks() == DevicePeaks()
        assert sim.host_peaks().private_bytes == 8


def test_in_a_plan_it_is_private_memory_while_it_is_cached_too() -> None:
    sim = meter()
    with sim.watching():
        sim.start()
        plain = torch.empty(100, dtype=torch.uint8)
        ring = torch.empty(1000, dtype=torch.uint8, pin_memory=True)
        assert sim.host_peaks() == HostMemory(1124, 0, 1124, 1124)
        assert [held.bytes for held in sim.alive()["host_private_peak_bytes"]] == [1024, 100]
        del ring, plain
        assert sim.host_held() == HostMemory(1024, 0, 1024, None)
        torch._C._host_emptyCache()
        assert sim.host_held() == HostMemory(0, 0, 0, None)


def test_private_and_file_backed_memory_peak_together(tmp_path: Path) -> None:
    torch.save(torch.ones(10), tmp_path / "checkpoint.pt")
    sim = meter()
    with sim.watching():
        sim.start()
        mapped = torch.load(tmp_path / "checkpoint.pt", map_location="cpu", weights_only=True, mmap=True)
        pinned = mapped.pin_memory()
        assert sim.host_peaks() == HostMemory(64, 40, 104, 104)
        del mapped, pinned


def test_what_was_cached_before_the_load_is_given_back() -> None:
    """A rehearsal leaves it: a load that pins as much is to take memory for it."""
    sim = meter(planned=False)
    with sim.watching(), memory_reader(os.getpid()) as read_memory:
        torch.empty(64 * MIB, dtype=torch.uint8, pin_memory=True)
        before = read_memory()
        sim.start()
        assert before.above(read_memory()).total_bytes == pytest.approx(64 * MIB, abs=2 * MIB)
        torch.empty(64 * MIB, dtype=torch.uint8, pin_memory=True)
        assert sim.peaks().pinned_bytes == 64 * MIB


def test_without_a_simulation_everything_is_as_before() -> None:
    before = os.preadv
    with meter().watching():
        assert os.preadv is not before
    assert os.preadv is before
    assert not torch.ones(3).is_pinned()
