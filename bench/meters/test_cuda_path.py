"""The CUDA path of the suite, on whatever CUDA this process has: a GPU, or a stand-in for one."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import nn

from bench.conformance.blueprint import GAPPED, Blueprint, PlaceName, Stored
from bench.conformance.judge import CellStatus, Judgement, judge
from bench.conformance.specimens import Specimen
from bench.conformance.stateful_modules import StatefulModel
from bench.measure.load_process import CachedOutputs
from bench.meters import device_meter
from bench.meters.allocator_settings import VARIABLES
from bench.meters.budget import Budget, BudgetedLoad, empty_process_bytes
from bench.meters.child import Job
from bench.meters.clock import LoadClock
from bench.meters.cuda import CudaMeter
from bench.meters.device import DeviceMeter, DevicePeaks
from bench.meters.host import memory_reader, release_memory, reset_peak
from bench.meters.roofline import from_pinned_memory
from bench.strategies import STRATEGIES
from model.checkpoints.checkpoint import Checkpoint
from model.values.bits import difference

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.skipif(any(os.environ.get(name) for name in VARIABLES), reason="counts what the defaults take"),
]

MIB = 2**20
CUDA = torch.device("cuda")
LAST = torch.device("cuda", max(torch.cuda.device_count() - 1, 0))
LIMIT_SECONDS = 60.0
ROOT = Path(__file__).parents[2]


def taken(size: int, device: torch.device = CUDA) -> torch.Tensor:
    return torch.empty(size, dtype=torch.uint8, device=device)


def judged(strategy: str, specimen: Specimen, device: torch.device = CUDA) -> Judgement:
    return judge(STRATEGIES[strategy].load, STRATEGIES[strategy].layout, specimen, device)


@pytest.fixture(params=[CUDA, LAST], ids=str)
def meter(request: pytest.FixtureRequest) -> Iterator[CudaMeter]:
    meter = CudaMeter(request.param)
    meter.start()
    yield meter
    meter.limit(None)
    meter.points()


@pytest.mark.parametrize("limit", [20 * MIB, 22 * MIB])
def test_a_limit_is_exact_whether_the_device_has_an_index_or_not(meter: CudaMeter, limit: int) -> None:
    meter.limit(limit)
    whole = taken(limit, meter.device)
    with pytest.raises(torch.OutOfMemoryError):
        taken(1, meter.device)
    meter.limit(None)
    taken(1, meter.device)
    del whole
    meter.start()
    meter.limit(limit - 1)
    with pytest.raises(torch.OutOfMemoryError):
        taken(limit, meter.device)


def test_a_limit_is_beyond_what_is_held(meter: CudaMeter) -> None:
    held = taken(20 * MIB, meter.device)
    meter.start()
    meter.limit(20 * MIB)
    whole = taken(20 * MIB, meter.device)
    with pytest.raises(torch.OutOfMemoryError):
        taken(1, meter.device)
    del held, whole


def test_what_was_there_before_the_start_does_not_count(meter: CudaMeter) -> None:
    taken(4 * MIB, meter.device)
    torch.empty(MIB, dtype=torch.uint8).pin_memory()
    meter.start()
    assert meter.peaks() == DevicePeaks(0, 0, 0, 0)


def test_page_locked_memory_counts_even_if_some_was_cached(meter: CudaMeter) -> None:
    torch.empty(MIB, dtype=torch.uint8).pin_memory()
    meter.start()
    again = torch.empty(MIB, dtype=torch.uint8).pin_memory()
    assert meter.peaks().pinned_bytes == meter.pinned_held_bytes() == MIB
    del again
    assert meter.pinned_held_bytes() == 0


def test_a_history_is_that_of_the_device(meter: CudaMeter) -> None:
    taken(4 * MIB, meter.device)
    assert meter.peaks().requested_bytes == 4 * MIB
    assert max(count for _, count in meter.points()["device_requested_bytes"]) == 4 * MIB


def test_a_segment_that_a_small_tensor_keeps_is_not_taken(meter: CudaMeter) -> None:
    small, others = taken(1000, meter.device), [taken(MIB, meter.device) for _ in range(3)]
    del others
    assert meter.taken_bytes() == meter.held_bytes() == 1000
    del small
    assert meter.taken_bytes() == 0


def test_what_another_allocator_takes_is_taken(meter: CudaMeter) -> None:
    runtime, address, free = ctypes.CDLL(None), ctypes.c_void_p(), meter.free_bytes() or 0
    with torch.cuda.device(meter.device):
        assert runtime.cudaMalloc(ctypes.byref(address), ctypes.c_size_t(32 * MIB)) == 0
        try:
            assert meter.taken_bytes() == 32 * MIB
            assert free - (meter.free_bytes() or 0) == 32 * MIB
        finally:
            assert runtime.cudaFree(address) == 0
    assert meter.taken_bytes() == 0
    assert meter.held_bytes() == 0


def test_a_tensor_that_skips_elements_is_refused_by_its_name() -> None:
    specimen = Blueprint((Stored(order=GAPPED), Stored()), (PlaceName("gapped"), PlaceName("weight", 1)))
    verdict = judged("baseline", specimen)
    assert (verdict.outcome, verdict.named) == (CellStatus.REFUSED, True), verdict.why


@pytest.mark.parametrize("layers", [1, 3])
def test_a_recurrent_layer_may_round_otherwise(layers: int) -> None:
    verdict = judged("load_assign", StatefulModel("recurrent", 5, layers))
    assert verdict.outcome == CellStatus.PASSED, verdict.why


def nothing(*_: object) -> None:
    pass


def begin_cuda(_: torch.device) -> None:
    torch.cuda.synchronize()


def test_an_empty_process_has_a_context() -> None:
    job = Job(partial(device_meter, "cpu"), begin_cuda, nothing, None, nothing)  # type: ignore[arg-type]
    context = BudgetedLoad(job, (), (), LIMIT_SECONDS).empty_bytes()
    assert empty_process_bytes(LIMIT_SECONDS, "cuda") == pytest.approx(context, abs=8 * MIB)


def load_24_mib(device: torch.device, _: object) -> nn.Module:
    model = nn.Module()
    model.register_buffer("weight", taken(24 * MIB, device))
    return model


def use_100_mib(_: nn.Module) -> None:
    taken(100 * MIB)


def budget_trial(meter: Callable[[], DeviceMeter]) -> BudgetedLoad:
    """A load that takes 24 MiB of the device, and 100 MiB when it is used."""
    return BudgetedLoad(Job(meter, nothing, load_24_mib, use_100_mib, use_100_mib), (), (24 * MIB,), LIMIT_SECONDS)


def test_the_devices_budget_is_the_loads_alone() -> None:
    trial = budget_trial(partial(device_meter, "cuda"))
    assert trial.under(Budget(device_bytes=24 * MIB)).fits
    told = trial.under(Budget(device_bytes=24 * MIB - 1)).failure_reason
    assert told.startswith("out of device memory at 0 MiB of 24 MiB, 24.00 MiB more asked for,")
    planned = budget_trial(partial(device_meter, "sim"))
    assert planned.under(Budget(device_bytes=24 * MIB)).fits
    assert planned.under(Budget(device_bytes=24 * MIB - 1)).failure_reason == told


def test_a_clock_finds_no_model_kept_that_has_answered(meter: CudaMeter) -> None:
    def outputs(model: nn.Module) -> list[torch.Tensor]:
        with torch.inference_mode():
            return [model(torch.ones(1, 64, device=meter.device))]

    architecture, answers = SimpleNamespace(outputs=outputs), SimpleNamespace(changed=())
    checkpoint = SimpleNamespace(
        specification=SimpleNamespace(architecture=architecture), reference_outputs=lambda: answers
    )
    cached = CachedOutputs(cast("Checkpoint", checkpoint), meter.device)
    clock = LoadClock(lambda device: nn.Linear(64, 64, device=device), cached.use, nothing, meter)
    for _ in range(2):
        clock.begin_round()
        clock.load_and_use()
    clock.finish_round()


def test_a_clock_stops_when_the_device_is_done(meter: CudaMeter) -> None:
    """Values of a late copy are not there: its source has been written to."""
    source, sums = torch.ones(MIB).pin_memory(), []
    stream: torch.cuda.Stream = torch.cuda.Stream(meter.device)

    def load(device: torch.device) -> nn.Module:
        model = nn.Module()
        with torch.cuda.stream(stream):
            model.register_buffer("weight", source.to(device, non_blocking=True))
        return model

    clock = LoadClock(
        load,
        lambda _: source.zero_(),
        lambda model: sums.append(cast("torch.Tensor", model.weight).sum().item()),
        meter,
    )
    clock.begin_round()
    clock.load_and_use()
    clock.finish_round()
    assert sums == [MIB]


def test_the_limit_of_page_locked_memory_is_taken_when_all_is_copied(meter: CudaMeter, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(MIB))
    from_pinned_memory([tmp_path / "file"], meter.device)
    assert torch.cuda.default_stream(meter.device).query()


def test_a_stream_leaves_no_page_locked_memory() -> None:
    torch._C._host_emptyCache()
    verdict = judged("streamed", Blueprint((Stored(),), (PlaceName("weight"),)))
    assert verdict.outcome == CellStatus.PASSED, verdict.why
    assert torch.cuda.host_memory_stats()["allocated_bytes.current"] == 0


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(MIB))


def test_a_load_comes_after_what_is_asked_of_its_memory(tmp_path: Path) -> None:
    """A copy to memory that is given back by then may not be done yet."""
    torch.save({"weight": torch.ones(MIB)}, tmp_path / "model.pt")
    before = torch.zeros(MIB).pin_memory().to(CUDA, non_blocking=True)
    address = before.data_ptr()
    del before
    model = STRATEGIES["streamed"].load(Flat, tmp_path / "model.pt", CUDA)
    weight = cast("torch.Tensor", model.weight)
    assert weight.data_ptr() == address
    assert weight.sum().item() == MIB


def test_the_check_of_a_tensor_takes_next_to_nothing_of_the_host() -> None:
    """A mapped checkpoint, loaded with less room than its largest tensor, is checked in the same room."""
    saved = torch.arange(16 * MIB, dtype=torch.float32)
    loaded = saved.to(CUDA)
    assert difference(loaded, saved) is None
    release_memory()
    reset_peak()
    with memory_reader(os.getpid()) as read_memory:
        before = read_memory().total_bytes
        assert difference(loaded, saved) is None
        peak = read_memory().total_peak_bytes
    if peak is None:
        pytest.skip("this system does not tell the peak of a process")
    assert peak - before < 16 * MIB
    loaded[-1] = 0
    assert difference(loaded, saved) == (
        "differs in 1 of 16,777,216 values, first at flat index 16,777,215: 0.0, saved as 16777215.0"
    )


def test_an_allocator_that_does_not_count_is_refused_in_a_line() -> None:
    environ = os.environ | {"PYTORCH_ALLOC_CONF": "backend:cudaMallocAsync"}
    command = (sys.executable, "-m", "pytest", "bench", "--device", "cuda", "--collect-only", "-q")
    run = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert "PYTORCH_ALLOC_CONF: backend:cudaMallocAsync does not count what tensors ask for" in run.stderr
    assert "Traceback" not in run.stderr
