"""Promises of `streamed` beside those of every recipe: dtypes, rings, direct reads, and whose memory is whose."""

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.meters.simulated.ledger import HOST, PINNED, Ledger, in_place
from bench.meters.simulated.peaks import host_held, host_peak, sum_peak
from bench.meters.simulated.simulation import simulation
from bench.strategies.reading import memory
from bench.strategies.reading import threads as reading_threads
from bench.strategies.streamed import streamed
from model.checkpoints import Checkpoint, Specification, make, make_sparse
from model.gpt2 import CONFIGS, GPT2, REHEARSAL

CPU = torch.device("cpu")
CUDA = torch.device("cuda")
DEVICE = "cuda:0"
MIB = 2**20
PAGE_BYTES = reading_threads.PAGE_BYTES
SPECIAL = [
    float("nan"),
    float("inf"),
    -float("inf"),
    0.0,
    -0.0,
    1e-45,
    -1e-40,
    3.4e38,
    1e-6,
    65519.0,
    65520.0,
    1.00390625,
]


class Holder(nn.Module):
    """Buffers like those that it is given; what it is built with is never a value of theirs."""

    def __init__(self, tensors: dict[str, Tensor], dtype: torch.dtype | None = None) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            kind = dtype if dtype and tensor.is_floating_point() else tensor.dtype
            self.register_buffer(name, torch.empty_strided(tensor.shape, tensor.stride(), dtype=kind))


class Shared(nn.Module):
    """A parameter under two names, and a buffer that is a part of it, after another storage."""

    part: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.zeros(3))
        self.one = nn.Parameter(torch.zeros(4, 1500))
        self.other = self.one
        self.register_buffer("part", self.one.detach()[1:3].t())


def bits(tensor: Tensor) -> list[int]:
    return tensor.detach().contiguous().flatten().view(torch.uint8).tolist()


def require_same(loaded: nn.Module, saved: dict[str, Tensor], dtype: torch.dtype | None = None) -> None:
    """Every tensor is the saved one to the bit, floating-point ones as `to(dtype)` has them."""
    found = loaded.state_dict()
    assert found.keys() == saved.keys()
    for name, tensor in saved.items():
        wanted = tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
        assert (found[name].dtype, found[name].shape) == (wanted.dtype, wanted.shape), name
        assert bits(found[name]) == bits(wanted), name


def some(count: int = 10_007) -> dict[str, Tensor]:
    """Tensors of several dtypes and sizes, none of whose sizes is a multiple of a page."""
    torch.manual_seed(1)
    special = torch.tensor(SPECIAL)
    return {
        "large": torch.cat([special, torch.randn(count), special]),
        "number": torch.tensor(7.125),
        "none": torch.empty(0, 3),
        "flags": torch.arange(1001) % 3 == 0,
        "whole": torch.arange(1003) * 2**40,
        "turned": torch.randn(37, 41).t(),
        "f64": torch.cat([special.double(), torch.randn(501, dtype=torch.float64) * 1e-3]),
        "f16": torch.randn(777).half(),
    }


def saved(tensors: dict[str, Any], folder: Path) -> Path:
    torch.save(tensors, folder / "checkpoint.pt")
    return folder / "checkpoint.pt"


def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks, reads and conversions of some pages each."""
    monkeypatch.setattr(memory, "BLOCK_BYTES", 2 * PAGE_BYTES)
    monkeypatch.setattr(memory, "READ_PAGES", 1)
    monkeypatch.setattr(memory, "CONVERTED_BYTES", 4 * PAGE_BYTES)
    monkeypatch.setattr(memory, "SLOTS", 4)


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


class Extra(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.extra: Any = None

    def get_extra_state(self) -> Any:
        return self.extra

    def set_extra_state(self, state: Any) -> None:
        self.extra = state


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
