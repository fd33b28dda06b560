"""Promises of `streamed` beside those of every recipe: dtypes, rings, direct reads, and whose memory is whose."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.meters.simulated.ledger import Ledger
from bench.meters.simulated.simulation import simulation
from bench.selftest.held_models import (
    CPU,
    CUDA,
    DEVICE,
    PAGE_BYTES,
    Extra,
    Holder,
    Shared,
    bits,
    require_same,
    saved,
    small_parts,
    some,
)
from bench.strategies.reading import memory
from bench.strategies.reading import threads as reading_threads
from bench.strategies.streamed import streamed
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.making import make
from model.checkpoints.specification import Specification
from model.gpt2 import CONFIGS, GPT2, REHEARSAL


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_every_tensor_is_what_it_would_be_converted_as_a_whole(
    dtype: torch.dtype | None,
    small: bool,
    threads: int,
    direct: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In as many parts as it is read, through values that are no numbers, and past the page cache."""
    tensors = some()
    path = saved(tensors, tmp_path)
    if direct:
        require_direct(path)
    if small:
        small_parts(monkeypatch)
        # So much a thread.
        monkeypatch.setattr(memory, "CONVERTED_BYTES", 4 * PAGE_BYTES * threads)
    loaded = streamed(lambda: Holder(tensors), path, CPU, dtype=dtype, threads=threads, direct=direct)
    require_same(loaded, tensors, dtype)


def require_direct(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except OSError as error:
        pytest.skip(f"this file system has no O_DIRECT: {error}")


@pytest.mark.parametrize("rest", [0, 1, 511, 4095])
def test_a_file_of_any_length_is_read_past_the_page_cache(rest: int, tmp_path: Path) -> None:
    """Its last page is seldom a whole one."""
    tensors = {"one": torch.arange(3 * PAGE_BYTES + rest).to(torch.uint8)}
    path = saved(tensors, tmp_path)
    content = path.read_bytes()
    # A comment of the archive, as long as it says.
    extra = (rest - len(content)) % PAGE_BYTES
    path.write_bytes(content[:-2] + extra.to_bytes(2, "little") + bytes(extra))
    assert path.stat().st_size % PAGE_BYTES == rest
    require_direct(path)
    require_same(streamed(lambda: Holder(tensors), path, CPU, direct=True), tensors)


@pytest.mark.parametrize(("cores", "direct", "expected"), [(2, False, 2), (64, False, 8), (2, True, 8), (64, True, 8)])
def test_threads_that_wait_for_a_disk_are_more_than_cores(
    cores: int, direct: bool, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors, counts = some(), list[int]()
    path = saved(tensors, tmp_path)
    if direct:
        require_direct(path)

    def counted(fill: Any, parts: Any, threads: int) -> Any:
        counts.append(threads)
        return reading_threads.started(fill, parts, threads)

    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(sys.modules[streamed.__module__], "started", counted)
    require_same(streamed(lambda: Holder(tensors), path, CPU, direct=direct), tensors)
    assert counts == [expected]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("of_model", [torch.float32, torch.bfloat16, torch.float16])
def test_the_dtype_of_the_model_that_is_built_does_not_matter(
    dtype: torch.dtype, of_model: torch.dtype, tmp_path: Path
) -> None:
    tensors = some()
    loaded = streamed(lambda: Holder(tensors, of_model), saved(tensors, tmp_path), CPU, dtype=dtype)
    require_same(loaded, tensors, dtype)


def test_ties_and_views_stay_what_they_are_in_another_dtype(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_parts(monkeypatch)
    source = Shared()
    nn.init.normal_(source.one)
    loaded = streamed(Shared, saved(dict(source.state_dict()), tmp_path), CPU, dtype=torch.bfloat16, threads=1)
    require_same(loaded, dict(source.state_dict()), torch.bfloat16)
    assert loaded.one is loaded.other
    assert loaded.part.data_ptr() == loaded.one.data_ptr() + 1500 * 2
    assert loaded.part.stride() == (1, 1500)
    assert loaded.one.untyped_storage().nbytes() == 6000 * 2


def test_tensors_of_two_dtypes_in_one_storage_are_not_converted(tmp_path: Path) -> None:
    """Bytes that have one dtype for one of them would have another for the other."""
    one = torch.zeros(8, dtype=torch.float8_e5m2)
    tensors = {"one": one, "other": one.view(torch.float8_e4m3fn)}
    path = saved(tensors, tmp_path)
    with pytest.raises(ValueError, match=r"checkpoint\.pt has tensors of several dtypes in one storage"):
        streamed(lambda: Holder(tensors), path, CPU, dtype=torch.float32)


@pytest.mark.parametrize("direct", [False, True])
def test_every_byte_passes_through_the_ring_once(
    direct: bool, tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated CUDA has no values to look at: the copies to it are."""
    small_parts(monkeypatch)
    tensors = some()
    path = saved(tensors, tmp_path)
    if direct:
        require_direct(path)
    copied: dict[int, list[tuple[int, int]]] = {}
    fill = memory.Ring.fill

    def spied(ring: memory.Ring, opened: Any, start: int, end: int, part: Tensor, kind: torch.dtype) -> None:
        fill(ring, opened, start, end, part, kind)
        copied.setdefault(part.untyped_storage().data_ptr(), []).append((int(part.storage_offset()), part.nbytes))

    monkeypatch.setattr(memory.Ring, "fill", spied)
    with simulation(ledger, planned=False):
        loaded = streamed(lambda: Holder(tensors), path, CUDA, ring=8 * PAGE_BYTES, threads=3, direct=direct)
        sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in loaded.state_dict().values()}
    sizes = {address: size for address, size in sizes.items() if size}
    assert copied.keys() == sizes.keys()
    for address, parts in copied.items():
        places = [0]
        for start, size in sorted(parts):
            assert start == places[-1]
            places.append(start + size)
        assert places[-1] == sizes[address]
    assert max(map(len, copied.values())) >= 5


def test_tensors_are_the_models_own(tmp_path: Path) -> None:
    tensors = some()
    path = saved(tensors, tmp_path)
    content = path.read_bytes()
    first, second = (streamed(lambda: Holder(tensors), path, CPU) for _ in range(2))
    for tensor in first.state_dict().values():
        tensor.zero_()
    require_same(second, tensors)
    assert path.read_bytes() == content
    # Nor does one reach into another.
    second.large.fill_(1)
    require_same(second, tensors | {"large": torch.ones_like(tensors["large"])})


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_storage_has_its_own_bytes_and_no_more(dtype: torch.dtype | None, tmp_path: Path) -> None:
    tensors = some()
    loaded = streamed(lambda: Holder(tensors), saved(tensors, tmp_path), CPU, dtype=dtype)
    for tensor in loaded.state_dict().values():
        assert tensor.untyped_storage().nbytes() == tensor.nbytes
        # `torch.save` aligns its records so.
        assert tensor.data_ptr() % 64 == 0


def test_tied_tensors_are_one(tmp_path: Path) -> None:
    source = Shared()
    loaded = streamed(Shared, saved(dict(source.state_dict()), tmp_path), CPU)
    assert loaded.one is loaded.other
    assert loaded.one.untyped_storage().nbytes() == 24_000
    with torch.no_grad():
        loaded.one[1, 7] = 5
    assert loaded.part[7, 0] == 5


def test_a_file_of_empty_tensors_only_is_loaded(tmp_path: Path) -> None:
    tensors = {"one": torch.empty(0), "two": torch.empty(3, 0, dtype=torch.int64), "three": torch.empty(0).half()}
    path = saved(tensors, tmp_path)
    for dtype in (None, torch.bfloat16):
        require_same(streamed(lambda: Holder(tensors), path, CPU, dtype=dtype), tensors, dtype)


@pytest.mark.parametrize("planned", [False, True], ids=["sim", "plan"])
def test_so_it_is_to_the_device(planned: bool, tmp_path: Path, ledger: Ledger) -> None:
    tensors = {"one": torch.empty(0), "two": torch.empty(3, 0, dtype=torch.int64)}
    path = saved(tensors, tmp_path)
    with simulation(ledger, planned=planned):
        assert streamed(lambda: Holder(tensors), path, CUDA).one.is_cuda
        assert ledger.held_bytes(DEVICE) == 0


def test_a_model_without_tensors_is_loaded(tmp_path: Path) -> None:
    path = saved({}, tmp_path)
    for dtype in (None, torch.bfloat16):
        assert streamed(nn.ReLU, path, CPU, dtype=dtype).state_dict() == {}


def test_a_safetensors_file_without_tensors_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes((2).to_bytes(8, "little") + b"{}")
    assert streamed(nn.ReLU, path, CPU).state_dict() == {}


def test_empty_safetensors_of_several_dtypes_have_one_place_and_are_converted(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    header = b"""{"a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]},
        "b": {"dtype": "I64", "shape": [0, 2], "data_offsets": [0, 0]}}"""
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    tensors = {"a": torch.empty(0), "b": torch.empty(0, 2, dtype=torch.int64)}
    for dtype in (None, torch.bfloat16):
        require_same(streamed(lambda: Holder(tensors), path, CPU, dtype=dtype), tensors, dtype)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_extra_state_may_hold_tensors_however_deep(dtype: torch.dtype | None, tmp_path: Path) -> None:
    tensors = list(some().values())
    state = {"dict": {"of": tensors[:2]}, "list": [(tensors[2], [tensors[3]])], "tuple": (tensors[4], "text", 3, None)}
    loaded = streamed(Extra, saved({"_extra_state": state}, tmp_path), CPU, dtype=dtype).extra
    found = [*loaded["dict"]["of"], loaded["list"][0][0], loaded["list"][0][1][0], loaded["tuple"][0]]
    wanted = [tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor for tensor in tensors[:5]]
    assert [(t.dtype, t.shape) for t in found] == [(t.dtype, t.shape) for t in wanted]
    assert list(map(bits, found)) == list(map(bits, wanted))
    assert loaded["tuple"][1:] == ("text", 3, None)


@pytest.mark.parametrize("layout", ["torch", "torch_sharded", "safetensors_sharded"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_whole_model_of_several_files_is_converted(layout: str, dtype: torch.dtype, tmp_path: Path) -> None:
    specification = Specification(REHEARSAL, "float32", layout)
    make(specification, tmp_path / "made", lambda _: None)
    checkpoint = Checkpoint(specification, tmp_path / "made")
    loaded = streamed(lambda: GPT2(CONFIGS[REHEARSAL]), checkpoint.path, CPU, dtype=dtype, threads=2)
    require_same(loaded, {name: tensor.clone() for name, tensor in checkpoint.tensors()}, dtype)
