"""Device `cuda`: the statistics that PyTorch's caching allocator keeps of itself.

Sources: `torch.cuda.memory_stats` (requested, allocated and reserved bytes, with their peaks) and
`torch.cuda.host_memory_stats` (page-locked memory, cached blocks included).
"""

from typing import Any

import torch

from bench.meters.device import Alive, DeviceMeter, DevicePeaks
from bench.meters.host import release_memory
from bench.meters.simulated.ledger import Event, Line
from bench.meters.simulated.peaks import Held, sum_peak


class CudaMeter(DeviceMeter):
    """Counts what the caching allocators of one CUDA device, and of page-locked memory, hand out."""

    def __init__(self, device: torch.device, source: str | None = None) -> None:
        """With `source`, the file of the recipe, the allocator records its history, which takes time and memory."""
        super().__init__(device)
        self._source = source
        self._level: dict[str, int] = {}
        self._alive: tuple[Held, ...] = ()

    def start(self) -> None:
        self._release()
        if self._source:
            # There is no public way to ask it what was alive.
            torch.cuda.memory._record_memory_history(  # noqa: SLF001
                context="alloc", stacks="python", device=self.device, clear_history=True
            )
        torch.cuda.reset_peak_memory_stats(self.device)
        torch.cuda.reset_peak_host_memory_stats()
        self._level = self._read("current")

    def peaks(self) -> DevicePeaks:
        self.synchronize()
        if self._source:
            traces = torch.cuda.memory._snapshot(self.device)["device_traces"]  # noqa: SLF001 - as in `start`
            index = torch.cuda.current_device() if self.device.index is None else self.device.index
            self._alive = sum_peak(recorded_events(traces[index], self._source)).alive
        return DevicePeaks(**{name: peak - self._level[name] for name, peak in self._read("peak").items()})

    def held_bytes(self) -> int | None:
        self._release()
        return self._read("current")["requested_bytes"] - self._level["requested_bytes"]

    def free_bytes(self) -> int | None:
        return torch.cuda.mem_get_info(self.device)[0]

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.device)

    def alive(self) -> Alive:
        return {"device_requested_peak_bytes": self._alive} if self._source else {}

    def _release(self) -> None:
        """Free what no tensor holds: the caches, and the workspaces that cuBLAS keeps after a first product."""
        release_memory()
        self.synchronize()
        torch._C._cuda_clearCublasWorkspaces()  # noqa: SLF001 - PyTorch's own leak check calls it; nothing public does
        torch.cuda.empty_cache()
        # Page-locked memory that the rehearsal left would serve the load, and not count. Torch 2.10 has no public name.
        torch._C._host_emptyCache()  # noqa: SLF001

    def _read(self, kind: str) -> dict[str, int]:
        """The fields of `DevicePeaks`: their `current` values or their `peak`s."""
        stats = torch.cuda.memory_stats(self.device)
        return {
            "requested_bytes": stats[f"requested_bytes.all.{kind}"],
            "allocated_bytes": stats[f"allocated_bytes.all.{kind}"],
            "reserved_bytes": stats[f"reserved_bytes.all.{kind}"],
            "pinned_bytes": torch.cuda.host_memory_stats()[f"allocated_bytes.{kind}"],
        }


def recorded_events(trace: list[dict[str, Any]], source: str) -> list[Event]:
    """A ledger's events from what PyTorch's allocator recorded; of stacks the innermost line of `source` counts."""
    events: list[Event] = []
    alive: dict[int, tuple[int, int]] = {}
    for number, entry in enumerate(trace):
        if entry["action"] == "alloc":
            lines = (Line(source, frame["line"]) for frame in entry.get("frames", ()) if frame["filename"] == source)
            events.append(Event("cuda", number, entry["size"], next(lines, None)))
            alive[entry["addr"]] = number, entry["size"]
        # What was there before the history began is not in it.
        elif entry["action"] == "free_completed" and entry["addr"] in alive:
            storage, size = alive.pop(entry["addr"])
            events.append(Event("cuda", storage, -size, None))
    return events
