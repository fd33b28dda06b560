"""Files that a recipe reads by itself, straight into a tensor."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import closing
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from bench.meters.simulated.conftest import CUDA, DEVICE
from bench.meters.simulated.ledger import PINNED, Ledger
from bench.meters.simulated.reads import MOST_READ_BYTES
from bench.meters.simulated.simulated_device import SimulatedDevice
from bench.meters.simulated.simulation import simulation
from bench.strategies.reading.threads import Reader, ReadFailed

pytestmark = pytest.mark.skipif(not hasattr(os, "preadv"), reason="needs os.preadv")

CONTENT = bytes(range(100))


class File(NamedTuple):
    """A file as a reader is given it."""

    opened: FileIO


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "weights").write_bytes(CONTENT)
    descriptor = os.open(tmp_path / "weights", os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def memory_of(tensor: Tensor) -> "ctypes.Array[ctypes.c_char]":
    return (ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr())


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize(("offset", "read"), [(0, 40), (60, 40), (70, 30), (100, 0), (200, 0)])
def test_as_much_is_read_as_there_is(
    world: SimulatedDevice, descriptor: int, pinned: bool, offset: int, read: int
) -> None:
    tensor = torch.zeros(40, dtype=torch.uint8, pin_memory=pinned)
    assert os.preadv(descriptor, [memory_of(tensor)], offset) == read
    if not world.planned:
        assert bytes(tensor.tolist()) == CONTENT[offset:][:40].ljust(40, b"\0")


def test_a_part_of_a_tensor_and_several_are_read_into(world: SimulatedDevice, descriptor: int) -> None:
    tensors = [torch.empty(50, dtype=torch.uint8, pin_memory=True)[10:40] for _ in range(4)]
    assert os.preadv(descriptor, [memory_of(tensor) for tensor in tensors], 20) == 80
    if not world.planned:
        assert bytes(torch.cat(tensors).tolist())[:80] == CONTENT[20:]


def test_memory_is_read_into_beside_tensors_that_have_none(world: SimulatedDevice, descriptor: int) -> None:
    tensor = torch.empty(30, dtype=torch.uint8)
    before, after, view = bytearray(10), bytearray(20), memoryview(bytearray(50))
    assert os.preadv(descriptor, [before, memory_of(tensor), after, view], 0) == 100
    assert (bytes(before), bytes(after), bytes(view[:40])) == (CONTENT[:10], CONTENT[40:60], CONTENT[60:])
    assert os.preadv(descriptor, [before, bytearray()], 5) == 10
    assert bytes(before) == CONTENT[5:15]


def test_nothing_is_read_behind_the_end(descriptor: int) -> None:
    with simulation(Ledger(__file__), planned=True):
        tensor = torch.empty(30, dtype=torch.uint8)
        assert os.preadv(descriptor, [memory_of(tensor), bytearray(5), memory_of(tensor)], 80) == 20
        assert os.preadv(descriptor, [bytearray(30), memory_of(tensor)], 80) == 20


def test_a_plan_reads_no_more_in_one_call_than_linux_does(tmp_path: Path) -> None:
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(2**40)
    with simulation(Ledger(__file__), planned=True), (tmp_path / "holes").open("rb") as file:
        ring = torch.empty(2**32, dtype=torch.uint8, pin_memory=True)
        assert os.preadv(file.fileno(), [memory_of(ring)], 2**39) == MOST_READ_BYTES
        assert os.preadv(file.fileno(), [memory_of(ring[: 2**30]), memory_of(ring)], 0) == MOST_READ_BYTES


def test_the_device_has_no_memory_to_read_into(world: SimulatedDevice, descriptor: int) -> None:
    tensor = torch.empty(40, dtype=torch.uint8, device=CUDA)
    with pytest.raises(OSError, match="Bad address"):
        os.preadv(descriptor, [memory_of(tensor)], 0)


def test_a_file_that_is_not_open_is_an_error(world: SimulatedDevice) -> None:
    tensor = torch.empty(40, dtype=torch.uint8)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.preadv(-1, [memory_of(tensor)], 0)


def test_advice_about_made_up_addresses_is_an_error_and_no_crash(world: SimulatedDevice) -> None:
    """A recipe may ask for large pages: `madvise` of what is not mapped fails."""
    tensor = torch.empty(2**21, dtype=torch.uint8, device=CUDA)
    advise = ctypes.CDLL(None).madvise
    assert advise(ctypes.c_void_p(tensor.data_ptr()), ctypes.c_size_t(tensor.nbytes), ctypes.c_int(4)) == -1
    assert (world.ledger.held_bytes(DEVICE), world.ledger.held_bytes(PINNED)) == (2**21, 0)


def test_the_suites_own_reader_makes_no_call_where_nothing_is_to_be_read_to(
    world: SimulatedDevice, descriptor: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del descriptor
    calls = 0
    preadv = os.preadv

    def counted(*args: Any) -> int:
        nonlocal calls
        calls += 1
        return preadv(*args)

    monkeypatch.setattr(os, "preadv", counted)
    with (tmp_path / "weights").open("rb", buffering=0) as opened, closing(Reader([File(opened)], direct=False)) as own:
        tensor = torch.empty(40, dtype=torch.uint8)
        own.read_runs(opened, [(0, 10), (20, 50)], tensor)
        assert calls == (0 if world.planned else 2)
        # What the file lacks is told in a plan too.
        with pytest.raises(ReadFailed, match="the file ends there"):
            own.read_runs(opened, [(0, 10), (80, 101)], tensor)
