"""Mapped files in a plan, as safetensors' own reader maps them: it is no Python, and copies by addresses."""

from pathlib import Path

import pytest
import torch

from bench.meters.host import file_backed
from bench.meters.simulated.conftest import CUDA, DEVICE, held, peak
from bench.meters.simulated.ledger import FILE, HOST, PINNED, Ledger
from bench.meters.simulated.simulated_device import SimulatedDevice
from bench.meters.simulated.simulation import simulation
from model.layouts.files import save_sparse
from model.layouts.layouts import save_safetensors

safetensors = pytest.importorskip("safetensors")
safetensors_torch = pytest.importorskip("safetensors.torch")

# 400 and 44 bytes, and one byte.
SHAPES = {"wide": ((10, 10), torch.float32), "half": ((22,), torch.bfloat16), "one": ((), torch.uint8)}
STATE_BYTES, LARGEST_BYTES = 445, 400


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with holes for the bytes."""
    with torch._subclasses.FakeTensorMode():
        tensors = {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in SHAPES.items()}
        save_safetensors(tensors, tmp_path, save_sparse)
    return tmp_path / "model.safetensors"


@pytest.fixture
def planned() -> bool:
    return True


def kinds(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}


def test_what_is_loaded_to_the_host_lies_in_the_file(world: SimulatedDevice, file: Path) -> None:
    loaded = safetensors_torch.load_file(file)
    assert kinds(loaded) == SHAPES
    assert {tensor.device.type for tensor in loaded.values()} == {"cpu"}
    assert {world.place(tensor) for tensor in loaded.values()} == {FILE}
    # Of its pages those count that are read, and they stay as long as a tensor does.
    assert peak(world, FILE) == 0
    copy = loaded["wide"].clone()
    assert (world.ledger.held_bytes(FILE), world.ledger.held_bytes(HOST)) == (400, 400)
    del loaded["wide"]
    assert world.ledger.held_bytes(FILE) == 400
    del loaded, copy
    assert world.ledger.held_bytes(FILE) == 0


def test_what_is_loaded_to_a_device_is_there(world: SimulatedDevice, file: Path) -> None:
    loaded = safetensors_torch.load_file(file, device="cuda")
    assert kinds(loaded) == SHAPES
    assert held(world) == peak(world) == STATE_BYTES
    assert peak(world, FILE) == STATE_BYTES
    assert (world.ledger.held_bytes(FILE), world.ledger.held_bytes(PINNED)) == (0, 0)


def test_a_plan_takes_the_page_locked_memory_that_the_reader_takes(tmp_path: Path) -> None:
    """Newer versions copy through it, and older ones do not: what one does with bytes it does without."""
    tensors = {name: torch.ones(shape, dtype=dtype) for name, (shape, dtype) in SHAPES.items()}
    safetensors_torch.save_file(tensors, tmp_path / "model.safetensors")
    peaks = []
    for planned in (False, True):
        with simulation(Ledger(__file__), planned=planned) as world:
            safetensors_torch.load_file(tmp_path / "model.safetensors", device="cuda")
            peaks.append((peak(world, DEVICE), peak(world, PINNED)))
    assert peaks[0] == peaks[1]
    assert peaks[0] in ((STATE_BYTES, 0), (STATE_BYTES, LARGEST_BYTES))


def test_a_part_of_a_tensor_is_a_view_of_it(world: SimulatedDevice, file: Path) -> None:
    """Loaders that read it so are transformers and torch.distributed.checkpoint."""
    with safetensors.safe_open(file, framework="pt") as opened:
        half = opened.get_slice("wide")[2:4]
    assert (half.shape, world.place(half)) == ((2, 10), FILE)
    moved = half.to(CUDA)
    assert (moved.nbytes, held(world), peak(world, FILE)) == (80, 80, 80)


def test_a_real_part_of_a_tensor_lies_in_the_mapped_file(tmp_path: Path) -> None:
    """What the plan assumes of the library: no part of a tensor is a copy, whatever it skips."""
    safetensors_torch.save_file({"a": torch.arange(10_000.0).view(100, 100)}, tmp_path / "a.safetensors")
    with safetensors.safe_open(tmp_path / "a.safetensors", framework="pt") as opened:
        parts = [opened.get_slice("a")[part] for part in ((slice(20, 40), slice(None)), (slice(None), slice(20, 40)))]
    assert [part.shape for part in parts] == [(20, 100), (100, 20)]
    assert file_backed(part.data_ptr() for part in parts) == [True, True]


def test_the_reader_is_as_it_was_afterwards(tmp_path: Path) -> None:
    safetensors_torch.save_file({"a": torch.arange(4)}, tmp_path / "a.safetensors")
    before = safetensors.safe_open.get_tensor
    with simulation(Ledger(__file__), planned=True):
        assert safetensors.safe_open.get_tensor is not before
    assert safetensors.safe_open.get_tensor is before
    assert safetensors_torch.load_file(tmp_path / "a.safetensors")["a"].tolist() == [0, 1, 2, 3]
