"""Memory that `streamed` takes: the model, what it converts in, and a ring."""

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.meters.allocations import sum_peak
from bench.meters.simulated.ledger import HOST, PINNED, Ledger, in_place
from bench.meters.simulated.peaks import host_held, host_peak
from bench.meters.simulated.simulation import simulation
from bench.selftest.held_models import CPU, CUDA, DEVICE, MIB, PAGE_BYTES, Holder, saved
from bench.strategies.reading import memory
from bench.strategies.streamed import streamed
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.making import make_sparse
from model.checkpoints.specification import Specification
from model.gpt2 import REHEARSAL


def test_a_file_in_that_dtype_is_read_straight(tmp_path: Path, ledger: Ledger) -> None:
    tensors = {"one": torch.ones(10_007).bfloat16(), "flag": torch.ones(3).bool()}
    path, peaks = saved(tensors, tmp_path), []
    for dtype in (None, torch.bfloat16, torch.float16):
        with simulation(ledger, planned=True):
            ledger.restart()
            streamed(lambda: Holder(tensors), path, CPU, dtype=dtype)
        peaks.append(sum_peak(in_place(ledger.events, HOST)).bytes)
    assert peaks[0] == peaks[1] < peaks[2]


def sparse(dtype: str, folder: Path, size: str = REHEARSAL) -> tuple[Path, Callable[[], nn.Module]]:
    """A checkpoint without values, and what builds its model."""
    specification = Specification(size, dtype, "torch")
    make_sparse(specification, folder / "sparse")
    return Checkpoint(specification, folder / "sparse").path, specification.build


SMALL_BYTES = Specification("small", "float32", "torch").footprint.state_bytes


def test_on_the_host_a_load_in_another_dtype_takes_its_model_and_what_is_converted(
    tmp_path: Path, ledger: Ledger
) -> None:
    path, build = sparse("float32", tmp_path, "small")
    with simulation(ledger, planned=True):
        model = streamed(build, path, CPU, dtype=torch.bfloat16, threads=2)
        assert ledger.held_bytes(HOST) == SMALL_BYTES // 2
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.bfloat16}
    assert host_peak(in_place(ledger.events, HOST, PINNED)).bytes == SMALL_BYTES // 2 + memory.CONVERTED_BYTES


def test_on_the_device_it_takes_its_model_and_a_part_as_it_was_read(tmp_path: Path, ledger: Ledger) -> None:
    path, build = sparse("float32", tmp_path, "small")
    with simulation(ledger, planned=True):
        model = streamed(build, path, CUDA, dtype=torch.bfloat16)
        assert ledger.held_bytes(DEVICE) == SMALL_BYTES // 2
        assert host_held(in_place(ledger.events, HOST, PINNED)) == 0
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.bfloat16}
    peak = sum_peak(in_place(ledger.events, DEVICE)).bytes
    assert SMALL_BYTES // 2 < peak <= SMALL_BYTES // 2 + 64 * MIB // memory.SLOTS
    assert host_peak(in_place(ledger.events, HOST, PINNED)).bytes == 64 * MIB


@pytest.mark.parametrize("ring", [MIB, 16 * MIB, 64 * MIB])
@pytest.mark.parametrize("direct", [False, True])
def test_the_device_takes_the_model_and_the_host_a_ring(
    ring: int, direct: bool, tmp_path: Path, ledger: Ledger
) -> None:
    path, build = sparse("float32", tmp_path, "small")
    with simulation(ledger, planned=True):
        model = streamed(build, path, CUDA, ring=ring, direct=direct)
        assert host_held(in_place(ledger.events, HOST, PINNED)) == 0
        assert ledger.held_bytes(DEVICE) == SMALL_BYTES
        assert all(tensor.is_cuda for tensor in model.state_dict().values())
    assert sum_peak(in_place(ledger.events, DEVICE)).bytes == SMALL_BYTES
    assert host_peak(in_place(ledger.events, HOST, PINNED)).bytes == ring


def test_for_a_small_file_the_ring_is_small(tmp_path: Path, ledger: Ledger) -> None:
    path, build = sparse("float32", tmp_path)
    state = Specification(REHEARSAL, "float32", "torch").footprint.state_bytes
    with simulation(ledger, planned=True):
        model = streamed(build, path, CUDA)
        assert ledger.held_bytes(DEVICE) == state
    assert state < host_peak(in_place(ledger.events, PINNED)).bytes == 128 * 1024
    assert model


def test_memory_goes_with_the_last_tensor_of_its_block(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "BLOCK_BYTES", 20 * PAGE_BYTES)
    tensors = {name: torch.zeros(2 * PAGE_BYTES) for name in "abcd"}
    path = saved(tensors, tmp_path)
    with simulation(ledger, planned=True):
        loaded = streamed(lambda: Holder(tensors), path, CPU).state_dict()
        held = []
        for name in "abcd":
            del loaded[name]
            gc.collect()
            held.append(ledger.held_bytes(HOST))
    # Two to a block.
    assert held[0] > held[1] == held[2] > held[3] == 0
