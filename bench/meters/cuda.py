"""Device `cuda`: the statistics that PyTorch's caching allocator keeps of itself.

Sources: `torch.cuda.memory_stats` (requested, allocated and reserved bytes, with their peaks) and
`torch.cuda.host_memory_stats` (page-locked memory, cached blocks included).
"""

import torch

from bench.meters.device import DevicePeaks
from bench.meters.host import release_memory


class CudaMeter:
    """Counts what the caching allocators of one CUDA device, and of page-locked memory, hand out."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._level: dict[str, int] = {}

    def start(self) -> None:
        self._release()
        torch.cuda.reset_peak_memory_stats(self.device)
        torch.cuda.reset_peak_host_memory_stats()
        self._level = self._read("current")

    def peaks(self) -> DevicePeaks:
        self.synchronize()
        return DevicePeaks(**{name: peak - self._level[name] for name, peak in self._read("peak").items()})

    def held_bytes(self) -> int | None:
        self._release()
        return self._read("current")["requested_bytes"] - self._level["requested_bytes"]

    def free_bytes(self) -> int | None:
        return torch.cuda.mem_get_info(self.device)[0]

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.device)

    def _release(self) -> None:
        """Free what no tensor holds: the caches, and the workspaces that cuBLAS keeps after a first product."""
        release_memory()
        self.synchronize()
        torch._C._cuda_clearCublasWorkspaces()  # noqa: SLF001 - PyTorch's own leak check calls it; nothing public does
        torch.cuda.empty_cache()

    def _read(self, kind: str) -> dict[str, int]:
        """The fields of `DevicePeaks`: their `current` values or their `peak`s."""
        stats = torch.cuda.memory_stats(self.device)
        return {
            "requested_bytes": stats[f"requested_bytes.all.{kind}"],
            "allocated_bytes": stats[f"allocated_bytes.all.{kind}"],
            "reserved_bytes": stats[f"reserved_bytes.all.{kind}"],
            "pinned_bytes": torch.cuda.host_memory_stats()[f"allocated_bytes.{kind}"],
        }
