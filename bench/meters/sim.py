"""Device `sim`: simulated CUDA. Its peaks are counted from a ledger, with a model of the caching allocator.

A plan counts the host's memory too, where nothing is real; other loads leave that to the host meter.
"""

import os
from contextlib import AbstractContextManager

import torch

from bench.meters.allocations import Alive, AllocationEvent, MemoryPeak, sum_peak, sum_points
from bench.meters.allocator_settings import AllocatorSettings, settings_of
from bench.meters.device import DeviceKind, DeviceMeter, DevicePeaks, MeterOptions
from bench.meters.host import HostMemory
from bench.meters.simulated.capacity import limit
from bench.meters.simulated.ledger import FILE, HOST, PINNED, Ledger, in_place
from bench.meters.simulated.peaks import device_peaks, host_held, host_peak, host_points
from bench.meters.simulated.simulation import simulation
from bench.meters.timeline import Points


class SimMeter(DeviceMeter):
    """Counts the memory that a load takes on `cuda`, or on the host as its device, while CUDA is simulated."""

    def __init__(self, device: torch.device, source: str | None, settings: AllocatorSettings, *, planned: bool) -> None:
        """Make the meter; lines of `source`, the recipe's file, explain peaks; `planned`: the host has no bytes."""
        super().__init__(device)
        self._ledger = Ledger(source)
        self._settings = settings
        self.counts_host = planned
        self._device_peaks: dict[str, MemoryPeak] = {}
        # Number of events when the load returned, and when every weight had been read.
        self._loaded = self._read = 0
        self._capacity: int | None = None
        self._place = f"{device.type}:{device.index or 0}" if device.type == "cuda" else HOST

    def watching(self) -> AbstractContextManager[object]:
        return simulation(self._ledger, self._settings, planned=self.counts_host)

    def start(self) -> None:
        # As on CUDA: what the rehearsal left cached is not to serve the load. Torch 2.10 has no public name for it.
        torch._C._host_emptyCache()  # noqa: SLF001
        torch._C._cuda_clearCublasWorkspaces()  # noqa: SLF001 - as on CUDA
        self._ledger.restart()

    def limit(self, count: int | None) -> None:
        if self._place == HOST:
            return
        if count is None:
            # The peaks stay those of a load that had no more.
            self._ledger.capacities.pop(self._place, None)
            self._ledger.watch(self._place, _accept_all)
        else:
            self._capacity = count
            limit(self._ledger, self._place, self._settings, count)

    def peaks(self) -> DevicePeaks:
        if self._place == HOST:
            return DevicePeaks()
        self._loaded = len(self._ledger.events)
        self._device_peaks = device_peaks(in_place(self._ledger.events, self._place), self._settings, self._capacity)
        pinned = host_peak(in_place(self._ledger.events, PINNED)).bytes
        on_device = {f"{figure}_bytes": peak.bytes for figure, peak in self._device_peaks.items()}
        return DevicePeaks(**on_device, pinned_bytes=pinned)

    def held_bytes(self) -> int | None:
        if self._place == HOST:
            return None
        torch._C._cuda_clearCublasWorkspaces()  # noqa: SLF001 - as on CUDA
        return self._ledger.held_bytes(self._place)

    def read(self, storage: torch.UntypedStorage) -> None:
        self._ledger.touched(storage, 0, storage.nbytes())
        if not self.counts_host:
            super().read(storage)

    def host_peaks(self) -> HostMemory:
        self._read = len(self._ledger.events)
        private, file = (peak.bytes for peak in self._host_peaks())
        total = host_peak(in_place(self._ledger.events, HOST, PINNED, FILE)).bytes
        return HostMemory(private, file, total, total)

    def host_held(self) -> HostMemory:
        private = host_held(in_place(self._ledger.events, HOST, PINNED))
        file = self._ledger.held_bytes(FILE)
        return HostMemory(private, file, private + file, None)

    def alive(self) -> Alive:
        on_device = {f"device_{figure}_peak_bytes": peak.alive for figure, peak in self._device_peaks.items()}
        private, file = (peak.alive for peak in self._host_peaks())
        return on_device | {"host_private_peak_bytes": private, "host_file_peak_bytes": file}

    def points(self) -> Points:
        points = {}
        if self._place != HOST:
            loading = self._ledger.events[: self._loaded]
            points["device_requested_bytes"] = sum_points(in_place(loading, self._place))
            points["host_pinned_bytes"] = host_points(in_place(loading, PINNED))
        if self.counts_host:
            reading = self._ledger.events[: self._read]
            points["host_private_bytes"] = host_points(in_place(reading, HOST, PINNED))
            points["host_file_bytes"] = sum_points(in_place(reading, FILE))
        return points

    def _host_peaks(self) -> tuple[MemoryPeak, MemoryPeak]:
        """Return the peaks of private memory, page-locked included, and of file-backed memory."""
        return host_peak(in_place(self._ledger.events, HOST, PINNED)), sum_peak(in_place(self._ledger.events, FILE))


def _accept_all(_: AllocationEvent) -> None:
    """Accept every allocation: there is no limit any more."""


def sim_meter(device: torch.device, options: MeterOptions) -> DeviceMeter:
    """Return the meter of simulated CUDA. Raises `ValueError` for settings that are not modelled."""
    settings = options.settings or settings_of(os.environ)
    return SimMeter(device, options.source, settings, planned=options.planned)


SIM = DeviceKind(
    "sim",
    sim_meter,
    torch_type="cuda",
    has_values=False,
    is_plannable=True,
    require_counts=lambda: settings_of(os.environ),
    note="simulated CUDA",
)
