from collections import Counter

import pytest
import torch

from bench.meters.cuda import CudaMeter
from bench.meters.device import DevicePeaks

MIB = 2**20


class FakeAllocator:
    """Stands in for PyTorch's allocators where there is no GPU: it counts what it is told, as they do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.current = Counter[str]()
        self.peak = Counter[str]()
        self.calls: list[str] = []
        monkeypatch.setattr(torch.cuda, "memory_stats", lambda _: self._stats(".all"))
        monkeypatch.setattr(torch.cuda, "host_memory_stats", lambda: self._stats(""))
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: self._reset())
        monkeypatch.setattr(torch.cuda, "reset_peak_host_memory_stats", self._reset)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda _: self.calls.append("synchronize"))
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: self.calls.append("empty cache"))
        clear = "_cuda_clearCublasWorkspaces"
        monkeypatch.setattr(torch._C, clear, lambda: self.calls.append("clear workspaces"), raising=False)

    def hold(self, change: int, *figures: str) -> None:
        for figure in figures:
            self.current[figure] += change
            self.peak[figure] = max(self.peak[figure], self.current[figure])

    def _reset(self) -> None:
        self.peak = Counter(self.current)

    def _stats(self, pool: str) -> dict[str, int]:
        """The host's allocator has one pool; its figure stands for `allocated_bytes` with no pool named."""
        names = ("requested_bytes", "allocated_bytes", "reserved_bytes") if pool else ("allocated_bytes",)
        kinds = {"current": self.current, "peak": self.peak}
        return {
            f"{name}{pool}.{kind}": counted[name if pool else "pinned"]
            for name in names
            for kind, counted in kinds.items()
        }


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
    assert allocator.calls == ["synchronize", "clear workspaces", "empty cache"]


def test_peaks_are_read_when_the_device_is_done(allocator: FakeAllocator, meter: CudaMeter) -> None:
    meter.start()
    allocator.calls.clear()
    meter.peaks()
    assert allocator.calls == ["synchronize"]


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
