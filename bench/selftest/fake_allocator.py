"""A fake of the statistics, the history and the driver of a CUDA device, for tests of its meter."""

from collections import Counter
from functools import partial
from typing import Any

import pytest
import torch


def entry(action: str, address: int, size: int, *frames: tuple[str, int], unix_seconds: float = 0.0) -> dict[str, Any]:
    """Return one event as in `torch.cuda.memory._snapshot`."""
    shown = [{"filename": filename, "line": line, "name": "load"} for filename, line in frames]
    told = {"action": action, "addr": address, "size": size, "stream": 0, "time_us": int(unix_seconds * 1e6)}
    # What was recorded without stacks has none.
    return told | ({"frames": shown} if shown else {})


class FakeAllocator:
    """Stands in for PyTorch's allocators where there is no GPU: it counts what it is told, as they do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.current = Counter[str]()
        self.peak = Counter[str]()
        self.calls: list[str] = []
        # How the history was asked for, what it is, and what is said where there is none.
        self.recordings: list[dict[str, Any]] = []
        self.trace: list[dict[str, Any]] = []
        self.refusal: str | None = None
        memory = torch.cuda.memory
        monkeypatch.setattr(memory, "_record_memory_history", self._record)
        monkeypatch.setattr(memory, "_snapshot", lambda _: self._snapshot())
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (0, 0))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: self.current["reserved_bytes"])
        monkeypatch.setattr(torch.cuda, "memory_stats", lambda _: self._stats(".all"))
        monkeypatch.setattr(torch.cuda, "host_memory_stats", lambda: self._stats(""))
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: self._reset())
        monkeypatch.setattr(torch.cuda, "reset_peak_host_memory_stats", self._reset)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda _: self.calls.append("synchronize"))
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: self.calls.append("empty cache"))
        for name, call in (
            ("_cuda_clearCublasWorkspaces", "clear workspaces"),
            ("_host_emptyCache", "empty host cache"),
        ):
            monkeypatch.setattr(torch._C, name, partial(self.calls.append, call), raising=False)

    def hold(self, change: int, *figures: str) -> None:
        for figure in figures:
            self.current[figure] += change
            self.peak[figure] = max(self.peak[figure], self.current[figure])

    def _snapshot(self) -> dict[str, Any]:
        if self.refusal:
            raise RuntimeError(self.refusal)
        return {"device_traces": [self.trace, self.trace]}

    def _record(self, enabled: str | None = "all", **options: Any) -> None:
        if self.refusal:
            raise RuntimeError(self.refusal)
        if enabled is None:
            self.trace = []
        self.recordings.append({"enabled": enabled, **options})

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
