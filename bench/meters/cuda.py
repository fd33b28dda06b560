"""Device `cuda`: the statistics that PyTorch's caching allocator keeps of itself.

Sources: `torch.cuda.memory_stats` (requested, allocated and reserved bytes, with their peaks) and
`torch.cuda.host_memory_stats` (page-locked memory, cached blocks included). What was held over time is from the
allocator's history, see `torch.cuda.memory._snapshot`; its `time_us` are microseconds of Unix time, as
`c10/util/ApproximateClock.h` converts them.
"""

import os
import time
from contextlib import suppress
from typing import Any

import torch

from bench.meters.allocations import Alive, AllocationEvent, LiveAllocation, SourceLine, sum_peak, sum_points
from bench.meters.allocator_settings import VARIABLES
from bench.meters.device import DeviceKind, DeviceMeter, DevicePeaks, MeterOptions
from bench.meters.host import release_memory
from bench.meters.roofline import PINNED
from bench.meters.timeline import Points

# The longest history without explanations. xl has 821 tensors; a check of their values allocates a few times a tensor.
MOST_ENTRIES = 100_000


class CudaMeter(DeviceMeter):
    """Counts what the caching allocators of one CUDA device, and of page-locked memory, hand out."""

    def __init__(self, device: torch.device, source: str | None = None) -> None:
        """Make the meter; with `source`, the file of the recipe, its history has stacks, which take time and memory."""
        super().__init__(device)
        self._source = source
        self._level: dict[str, int] = {}
        self._beyond_level = 0
        self._alive: tuple[LiveAllocation, ...] = ()
        self._recorded = False
        # When the peaks were asked for, on the monotonic clock, and what that clock is ahead of Unix time.
        self._loaded_seconds = self._ahead_seconds = 0.0

    def start(self) -> None:
        self._release()
        self._record()
        torch.cuda.reset_peak_memory_stats(self.device)
        torch.cuda.reset_peak_host_memory_stats()
        self._level = self._read("current")
        self._beyond_level = self._beyond_bytes()

    def limit(self, count: int | None) -> None:
        """Limit the caching allocator of this process. The memory of CUDA's context does not count."""
        fraction = 1.0
        if count is not None:
            total = torch.cuda.get_device_properties(self.device).total_memory
            # If the product with the total is a little too small, the allocator may cut a byte off, or round it.
            fraction = (torch.cuda.memory_reserved(self.device) + count + 0.25) / total
        # More than all of it cannot be asked for, nor had. A device without an index is refused here, and only here.
        torch.cuda.set_per_process_memory_fraction(min(1.0, fraction), self._index)

    def peaks(self) -> DevicePeaks:
        self.synchronize()
        self._loaded_seconds = time.monotonic()
        self._ahead_seconds = self._loaded_seconds - time.time()
        if self._source and self._recorded:
            self._alive = sum_peak(recorded_events(self._trace(), self._source)).alive
        return DevicePeaks(**{name: peak - self._level[name] for name, peak in self._read("peak").items()})

    def held_bytes(self) -> int | None:
        self._release()
        return self._read("current")["requested_bytes"] - self._level["requested_bytes"]

    def pinned_held_bytes(self) -> int | None:
        self._release()
        return self._read("current")["pinned_bytes"] - self._level["pinned_bytes"]

    def taken_bytes(self) -> int | None:
        """Return the bytes of tensors, and those that the driver tells beyond PyTorch's segments.

        A segment that a small tensor keeps from going back is not taken: it serves whoever asks next.
        """
        held = self.held_bytes() or 0
        return held + self._beyond_bytes() - self._beyond_level

    def _beyond_bytes(self) -> int:
        return self.used_bytes() - torch.cuda.memory_reserved(self.device)

    def used_bytes(self) -> int:
        free, total = torch.cuda.mem_get_info(self.device)
        return total - free

    def free_bytes(self) -> int | None:
        return torch.cuda.mem_get_info(self.device)[0]

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.device)

    def alive(self) -> Alive:
        return {"device_requested_peak_bytes": self._alive} if self._source else {}

    def points(self) -> Points:
        """Return the points of requested bytes; empty without a whole history. Page-locked memory has no history."""
        if not self._recorded:
            return {}
        trace = self._trace()
        torch.cuda.memory._record_memory_history(None)  # noqa: SLF001 - as in `_record`
        if len(trace) >= MOST_ENTRIES or not all("time_us" in entry for entry in trace):
            return {}
        events = recorded_events(trace, self._source, self._ahead_seconds)
        return {"device_requested_bytes": sum_points([one for one in events if one.seconds <= self._loaded_seconds])}

    def _record(self) -> None:
        """Have the allocator record its history; without stacks that takes next to no time and memory."""
        explained = {"context": "alloc", "stacks": "python"}
        plain = {"context": None, "stacks": "python", "max_entries": MOST_ENTRIES}
        # The allocator of `cudaMallocAsync` keeps no history. There is no public way to ask for one.
        with suppress(RuntimeError):
            torch.cuda.memory._record_memory_history(  # noqa: SLF001
                device=self.device, clear_history=True, **(explained if self._source else plain)
            )
            self._recorded = True

    def _trace(self) -> list[dict[str, Any]]:
        traces = torch.cuda.memory._snapshot(self.device)["device_traces"]  # noqa: SLF001 - as in `_record`
        return traces[self._index]

    @property
    def _index(self) -> int:
        return torch.cuda.current_device() if self.device.index is None else self.device.index

    def _release(self) -> None:
        """Free what no tensor holds: the caches, and the workspaces that cuBLAS keeps after a first product."""
        release_memory()
        self.synchronize()
        torch._C._cuda_clearCublasWorkspaces()  # noqa: SLF001 - PyTorch's own leak check calls it; nothing public does
        torch.cuda.empty_cache()
        # Page-locked memory that the rehearsal left would serve the load, and not count. Torch 2.10 has no public name.
        torch._C._host_emptyCache()  # noqa: SLF001

    def _read(self, kind: str) -> dict[str, int]:
        """Return the fields of `DevicePeaks`, their `current` values or their `peak`s."""
        stats = torch.cuda.memory_stats(self.device)
        return {
            "requested_bytes": stats[f"requested_bytes.all.{kind}"],
            "allocated_bytes": stats[f"allocated_bytes.all.{kind}"],
            "reserved_bytes": stats[f"reserved_bytes.all.{kind}"],
            "pinned_bytes": torch.cuda.host_memory_stats()[f"allocated_bytes.{kind}"],
        }


def recorded_events(
    trace: list[dict[str, Any]], source: str | None, ahead_seconds: float = 0.0
) -> list[AllocationEvent]:
    """Return what PyTorch's allocator recorded as events; of a stack the innermost line of `source` counts.

    `ahead_seconds` is what the monotonic clock is ahead of Unix time.
    """
    events: list[AllocationEvent] = []
    alive: dict[int, tuple[int, int]] = {}
    for number, entry in enumerate(trace):
        seconds = entry.get("time_us", 0) / 1e6 + ahead_seconds
        if entry["action"] == "alloc":
            lines = (
                SourceLine(frame["filename"], frame["line"])
                for frame in entry.get("frames", ())
                if frame["filename"] == source
            )
            events.append(AllocationEvent("cuda", number, entry["size"], next(lines, None), seconds=seconds))
            alive[entry["addr"]] = number, entry["size"]
        # Allocations from before the history began are not in it.
        elif entry["action"] == "free_completed" and entry["addr"] in alive:
            storage, size = alive.pop(entry["addr"])
            events.append(AllocationEvent("cuda", storage, -size, None, seconds=seconds))
    return events


def cuda_meter(device: torch.device, options: MeterOptions) -> DeviceMeter:
    """Return the meter of a CUDA device, with stacks in its history if peaks are to be explained."""
    return CudaMeter(device, options.source if options.explained else None)


def require_present(text: str) -> None:
    """Raise `ValueError` unless this machine has the CUDA device that `text` names."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not gpus:
        lack = "finds no GPU" if torch.version.cuda else "is built without CUDA"
        repair = "check nvidia-smi" if torch.version.cuda else "install a CUDA build"
        raise ValueError(f"--device {text}: torch {torch.__version__} {lack}; {repair}, or use --device sim or cpu")
    index = text.partition(":")[2]
    if index and int(index) >= gpus:
        there = "1 GPU; use --device cuda:0" if gpus == 1 else f"{gpus} GPUs; use --device cuda:0 to cuda:{gpus - 1}"
        raise ValueError(f"--device {text}: this machine has {there}")


def require_counts() -> None:
    """Raise `ValueError` for an allocator that does not count requested bytes."""
    if (backend := torch.cuda.get_allocator_backend()) != "native":
        variable = next((name for name in VARIABLES if "backend" in os.environ.get(name, "")), VARIABLES[-1])
        raise ValueError(
            f"{variable}: backend:{backend} does not count the bytes that tensors request, and peaks need them; leave "
            "out the backend"
        )


CUDA = DeviceKind(
    "cuda",
    cuda_meter,
    torch_type="cuda",
    is_gpu=True,
    is_numbered=True,
    roofline=PINNED,
    require_present=require_present,
    require_counts=require_counts,
)
