"""Checkpoints loaded while CUDA is simulated, and planned."""

from pathlib import Path
from typing import Any

import pytest
import torch

from bench.meters.simulated.conftest import CUDA, held, peak
from bench.meters.simulated.ledger import FILE, HOST, Ledger
from bench.meters.simulated.simulated_device import SimulatedDevice
from bench.meters.simulated.simulation import simulation


@pytest.mark.parametrize("location", ["cuda", CUDA, {"cpu": "cuda:0"}, lambda storage, _: storage.cuda()])
def test_a_checkpoint_loads_to_the_device_storage_by_storage(
    checkpoint: Path, world: SimulatedDevice, location: Any
) -> None:
    loaded = torch.load(checkpoint, map_location=location, weights_only=True)
    assert all(tensor.is_cuda for tensor in loaded.values())
    assert held(world) == peak(world) == 440
    assert loaded["whole"].data_ptr() + 200 == loaded["half"].data_ptr()
    # One storage after the other goes through the host.
    assert peak(world, HOST) == 400


def test_a_checkpoint_that_stays_on_the_host_takes_nothing_on_the_device(
    checkpoint: Path, world: SimulatedDevice
) -> None:
    loaded = torch.load(checkpoint, map_location="cpu", weights_only=True)
    assert loaded["own"].device.type == "cpu"
    assert (peak(world), peak(world, HOST)) == (0, 440)


def test_a_mapped_checkpoint_counts_where_it_is_read_and_while_it_is_mapped(
    checkpoint: Path, world: SimulatedDevice
) -> None:
    loaded = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    assert (peak(world, FILE), peak(world, HOST)) == (0, 0)
    moved = loaded["half"].to(CUDA)
    # Of the storage that it shares with another, its own half.
    assert world.ledger.held_bytes(FILE) == 200
    assert held(world) == 200
    loaded["whole"].sum()
    assert world.ledger.held_bytes(FILE) == 400
    del loaded
    assert world.ledger.held_bytes(FILE) == 0
    assert moved.is_cuda


def test_a_mapped_tensor_that_is_converted_is_the_hosts(checkpoint: Path, world: SimulatedDevice) -> None:
    loaded = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    converted = loaded["whole"].to(torch.float16)
    assert converted.device.type == "cpu"
    assert (peak(world, FILE), world.ledger.held_bytes(HOST)) == (400, 200)


def test_of_a_slice_of_a_mapped_tensor_only_that_is_read(checkpoint: Path, world: SimulatedDevice) -> None:
    loaded = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    for part in loaded["whole"].chunk(10)[:3]:
        part.to(CUDA)
    assert world.ledger.held_bytes(FILE) == 120


def test_a_checkpoint_mapped_to_the_device_is_read_and_unmapped(checkpoint: Path, world: SimulatedDevice) -> None:
    loaded = torch.load(checkpoint, map_location=CUDA, weights_only=True, mmap=True)
    assert loaded["own"].is_cuda
    assert held(world) == 440
    assert (peak(world, FILE), world.ledger.held_bytes(FILE), peak(world, HOST)) == (440, 0, 0)


def test_a_simulated_load_reads_the_pages_that_it_copies(tmp_path: Path) -> None:
    """A copy to a real device reads a mapped file: its pages have to become resident here as well."""
    count = 2**22
    torch.save(torch.ones(count), tmp_path / "checkpoint.pt")
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("needs Linux's /proc")

    def resident() -> int:
        [line] = [line for line in status.read_text().splitlines() if line.startswith("RssFile")]
        return int(line.split()[1]) * 1024

    with simulation(Ledger(__file__), planned=False):
        mapped = torch.load(tmp_path / "checkpoint.pt", map_location="cpu", weights_only=True, mmap=True)
        before = resident()
        mapped.to(CUDA)
        assert resident() - before > 3.9 * count


def test_a_plan_touches_no_page_and_opens_a_file_with_holes(tmp_path: Path) -> None:
    """A plan of 100 GB: more than there may be of memory, of disk, and of addresses that can be mapped."""
    shape = (100, 10**9 // 4)
    with torch._subclasses.FakeTensorMode(), torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save(torch.empty(shape), tmp_path / "checkpoint.pt")
    with simulation(Ledger(__file__), planned=True) as world:
        for mmap in (False, True):
            loaded = torch.load(tmp_path / "checkpoint.pt", map_location=CUDA, weights_only=True, mmap=mmap)
            assert loaded.shape == shape
        assert peak(world, HOST) == peak(world, FILE) == 10**11
        assert torch.rand(shape).normal_().shape == shape
    assert (tmp_path / "checkpoint.pt").stat().st_blocks * 512 < 2**20
