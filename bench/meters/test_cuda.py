import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.meters.allocations import LiveAllocation, SourceLine, sum_peak
from bench.meters.cuda import MOST_ENTRIES, CudaMeter, recorded_events
from bench.meters.device import DevicePeaks
from bench.meters.timeline import Point
from bench.selftest.fake_allocator import FakeAllocator, entry

MIB = 2**20


@pytest.fixture
def allocator(monkeypatch: pytest.MonkeyPatch) -> FakeAllocator:
    return FakeAllocator(monkeypatch)


@pytest.fixture
def meter() -> CudaMeter:
    return CudaMeter(torch.device("cuda"))


def test_peaks_are_above_what_was_held_before(allocator: FakeAllocator, meter: CudaMeter) -> None:
    allocator.hold(7 * MIB, "requested_bytes", "allocated_bytes", "reserved_bytes", "pinned")
    meter.start()
    allocator.hold(100, "requested_bytes")
    allocator.hold(512, "allocated_bytes")
    allocator.hold(2 * MIB, "reserved_bytes")
    allocator.hold(128, "pinned")
    allocator.hold(-100, "requested_bytes")
    assert meter.peaks() == DevicePeaks(100, 512, 2 * MIB, 128)


def test_an_earlier_peak_does_not_count(allocator: FakeAllocator, meter: CudaMeter) -> None:
    allocator.hold(MIB, "requested_bytes", "pinned")
    allocator.hold(-MIB, "requested_bytes", "pinned")
    meter.start()
    assert meter.peaks() == DevicePeaks(0, 0, 0, 0)


def test_what_is_still_held_is_told_after_caches_and_workspaces_are_gone(
    allocator: FakeAllocator, meter: CudaMeter
) -> None:
    meter.start()
    allocator.hold(4096, "requested_bytes")
    allocator.calls.clear()
    assert meter.held_bytes() == 4096
    assert allocator.calls == ["synchronize", "clear workspaces", "empty cache", "empty host cache"]


def test_what_other_allocators_take_is_seen_by_the_driver(
    allocator: FakeAllocator, meter: CudaMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [70 * MIB]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free[0], 80 * MIB))
    meter.start()
    assert meter.used_bytes() == 10 * MIB
    free[0] -= 7 * MIB
    allocator.calls.clear()
    assert meter.taken_bytes() == 7 * MIB
    # Caches of PyTorch's own are not what a loader keeps.
    assert "empty cache" in allocator.calls
    assert meter.held_bytes() == 0


def test_of_a_segment_what_tensors_hold_is_taken(
    allocator: FakeAllocator, meter: CudaMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small tensor that stays keeps the whole of its segment, which serves whoever asks next."""
    other = [3 * MIB]
    monkeypatch.setattr(
        torch.cuda, "mem_get_info", lambda _: (80 * MIB - allocator.current["reserved_bytes"] - other[0], 80 * MIB)
    )
    allocator.hold(2 * MIB, "reserved_bytes")
    meter.start()
    allocator.hold(20 * MIB, "reserved_bytes")
    allocator.hold(100, "requested_bytes")
    assert meter.taken_bytes() == 100
    other[0] += 5 * MIB
    assert meter.taken_bytes() == 5 * MIB + 100


def test_peaks_are_read_when_the_device_is_done(allocator: FakeAllocator, meter: CudaMeter) -> None:
    meter.start()
    allocator.calls.clear()
    meter.peaks()
    assert allocator.calls == ["synchronize"]


def test_what_the_allocator_recorded_becomes_a_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = [
        {"action": "free_completed", "addr": 7, "size": 4096, "frames": []},
        {"action": "segment_alloc", "addr": 64, "size": 2 * MIB, "frames": []},
        entry("alloc", 64, 100, ("torch/nn.py", 9), (__file__, 1), (__file__, 3)),
        entry("alloc", 1024, 50, ("torch/nn.py", 9)),
        entry("free_requested", 64, 100, (__file__, 5)),
        entry("free_completed", 64, 100, (__file__, 5)),
        entry("alloc", 64, 70, (__file__, 3)),
    ]
    events = recorded_events(trace, __file__)
    first, second = SourceLine(__file__, 1), SourceLine(__file__, 3)
    assert [(event.bytes, event.line) for event in events] == [(100, first), (50, None), (-100, None), (70, second)]
    assert sum_peak(events).bytes == 150


def test_peaks_are_explained_from_the_recorded_history(
    allocator: FakeAllocator, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces = [[], [entry("alloc", 64, 100, (__file__, 1))]]
    monkeypatch.setattr(torch.cuda.memory, "_snapshot", lambda _: {"device_traces": traces})
    meter = CudaMeter(torch.device("cuda", 1), __file__)
    meter.start()
    assert [(options["clear_history"], options["context"]) for options in allocator.recordings] == [(True, "alloc")]
    meter.peaks()
    assert meter.alive() == {"device_requested_peak_bytes": (LiveAllocation(100, 1, "test_cuda.py:1", "import time"),)}


def test_without_the_recipes_file_the_history_has_no_stacks(allocator: FakeAllocator, meter: CudaMeter) -> None:
    """Stacks take time and memory."""
    meter.start()
    meter.peaks()
    assert meter.alive() == {}
    [options] = allocator.recordings
    assert (options["context"], options["clear_history"], options["max_entries"]) == (None, True, MOST_ENTRIES)


def loaded(allocator: FakeAllocator, meter: CudaMeter) -> float:
    """A load took 100 bytes, then 50, and gave 100 back; using it took 900. Gives when it began, on Unix time."""
    meter.start()
    meter.peaks()
    # The times are made up: those before the peaks were asked for are the load's.
    began = time.time() - 1
    for name, address, size, after in (
        ("free_completed", 7, 4096, 0.1),
        ("alloc", 64, 100, 0.2),
        ("alloc", 1024, 50, 0.3),
        ("free_requested", 64, 100, 0.35),
        ("free_completed", 64, 100, 0.4),
        ("alloc", 64, 900, 2.0),
    ):
        allocator.trace.append(entry(name, address, size, unix_seconds=began + after))
    return began


def test_what_the_load_held_over_time_is_from_the_history(allocator: FakeAllocator, meter: CudaMeter) -> None:
    began = loaded(allocator, meter) + time.monotonic() - time.time()
    points: list[Point] = list(meter.points()["device_requested_bytes"])
    assert [count for _, count in points] == [100, 150, 50]
    assert [at - began for at, _ in points] == pytest.approx([0.2, 0.3, 0.4], abs=0.01)
    assert [options["enabled"] for options in allocator.recordings] == ["all", None]


def test_a_history_that_may_be_cut_or_has_no_times_tells_nothing(allocator: FakeAllocator, meter: CudaMeter) -> None:
    loaded(allocator, meter)
    trace = allocator.trace
    allocator.trace = [{name: told for name, told in entry.items() if name != "time_us"} for entry in trace]
    assert meter.points() == {}
    allocator.trace = [*trace, *trace[-1:] * (MOST_ENTRIES - len(trace))]
    assert meter.points() == {}
    allocator.trace = [*trace, *trace[-1:] * (MOST_ENTRIES - len(trace) - 1)]
    assert meter.points() != {}


@pytest.mark.parametrize("source", [None, __file__])
def test_an_allocator_that_keeps_no_history_is_measured_without(allocator: FakeAllocator, source: str | None) -> None:
    allocator.refusal = "cudaMallocAsync does not yet support recordHistory."
    meter = CudaMeter(torch.device("cuda"), source)
    meter.start()
    allocator.hold(100, "requested_bytes")
    assert meter.peaks().requested_bytes == 100
    assert meter.points() == {}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_tensor_is_counted_to_the_byte(meter: CudaMeter) -> None:
    meter.start()
    tensor = torch.empty(1_000_001, dtype=torch.uint8, device=meter.device)
    peaks = meter.peaks()
    assert peaks.requested_bytes == 1_000_001
    assert peaks.allocated_bytes == 1_000_448
    assert meter.held_bytes() == 1_000_001
    del tensor
    assert meter.held_bytes() == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_tensor_is_in_the_history_when_it_was_there(meter: CudaMeter) -> None:
    meter.start()
    began = time.monotonic()
    torch.empty(1_000_001, dtype=torch.uint8, device=meter.device)
    peaks, ended = meter.peaks(), time.monotonic()
    points = meter.points()["device_requested_bytes"]
    assert max(count for _, count in points) == peaks.requested_bytes == 1_000_001
    assert all(began - 0.001 <= at <= ended for at, _ in points)


class FractionOf:
    """Stands in for PyTorch's limit, which refuses a device without an index, and cuts bytes off, or rounds them."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        total: int,
        taken: int = 0,
        to_bytes: Callable[[float], int] = int,
    ) -> None:
        self.bytes, self.index, self._total, self._to_bytes = 0, -1, total, to_bytes
        properties = SimpleNamespace(total_memory=total)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: taken)
        monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", self._set)

    def _set(self, fraction: float, device: torch.device | int) -> None:
        index = device if isinstance(device, int) else device.index
        if index is None:
            raise ValueError(f"Expected a torch.device with a specified index or an integer, but got:{device}")
        assert 0 <= fraction <= 1
        self.bytes, self.index = self._to_bytes(fraction * self._total), index


@pytest.mark.parametrize(("device", "index"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_a_limit_is_of_the_device_that_is_measured(
    allocator: FakeAllocator, monkeypatch: pytest.MonkeyPatch, device: str, index: int
) -> None:
    del allocator
    limited = FractionOf(monkeypatch, 80 * MIB)
    CudaMeter(torch.device(device)).limit(8 * MIB)
    assert (limited.bytes, limited.index) == (8 * MIB, index)


@pytest.mark.parametrize(
    ("taken", "count", "limit"), [(0, 8, 8), (2, 6, 8), (0, 100, 80), (0, 80, 80), (3, 77, 80), (0, None, 80)]
)
def test_a_limit_is_beyond_what_is_taken(
    monkeypatch: pytest.MonkeyPatch, taken: int, count: int | None, limit: int
) -> None:
    limited = FractionOf(monkeypatch, 80 * MIB, taken * MIB)
    CudaMeter(torch.device("cuda:1")).limit(None if count is None else count * MIB)
    assert limited.bytes == limit * MIB


@given(st.integers(1, 2**40), st.integers(2**30, 2**40), st.sampled_from([int, round]))
def test_a_limit_is_exact(count: int, total: int, to_bytes: Callable[[float], int]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        limited = FractionOf(monkeypatch, total, to_bytes=to_bytes)
        CudaMeter(torch.device("cuda:0")).limit(count)
        assert limited.bytes == min(count, total)
