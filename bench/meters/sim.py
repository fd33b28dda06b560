"""Device `sim`: simulated CUDA. Its peaks are counted from a ledger, with a model of the caching allocator.

A plan counts the host's memory too, where nothing is real; other loads leave that to the host meter.
"""

from contextlib import AbstractContextManager

import torch

from bench.meters.device import Alive, DeviceMeter, DevicePeaks
from bench.meters.host import HostMemory
from bench.meters.simulated.allocator_settings import AllocatorSettings
from bench.meters.simulated.ledger import FILE, HOST, Ledger, in_place
from bench.meters.simulated.peaks import Peak, device_peaks, sum_peak, total_peak
from bench.meters.simulated.simulation import simulation


class SimMeter(DeviceMeter):
    """Counts what a load asks of `cuda`, or of the host where that is the device, while CUDA is simulated."""

    def __init__(self, device: torch.device, source: str | None, settings: AllocatorSettings, *, planned: bool) -> None:
        """`source` is the file of the recipe, whose lines explain peaks; `planned`: the host has no bytes either."""
        super().__init__(device)
        self._ledger = Ledger(source)
        self._settings = settings
        self._planned = planned
        self._device_peaks: dict[str, Peak] = {}
        self._host_peaks: dict[str, Peak] = {}
        self._place = f"{device.type}:{device.index or 0}" if device.type == "cuda" else HOST

    def watching(self) -> AbstractContextManager[object]:
        return simulation(self._ledger, planned=self._planned)

    def start(self) -> None:
        self._ledger.restart()

    def peaks(self) -> DevicePeaks:
        if self._place == HOST:
            return DevicePeaks()
        self._device_peaks = device_peaks(in_place(self._ledger.events, self._place), self._settings)
        return DevicePeaks(**{f"{figure}_bytes": peak.bytes for figure, peak in self._device_peaks.items()})

    def held_bytes(self) -> int | None:
        return None if self._place == HOST else self._ledger.held_bytes(self._place)

    def host_peaks(self) -> HostMemory | None:
        self._host_peaks = {place: sum_peak(in_place(self._ledger.events, place)) for place in (HOST, FILE)}
        if not self._planned:
            return None
        total = total_peak(self._ledger.events, (HOST, FILE))
        return HostMemory(self._host_peaks[HOST].bytes, self._host_peaks[FILE].bytes, total, total)

    def host_held(self) -> HostMemory | None:
        if not self._planned:
            return None
        private, file = (self._ledger.held_bytes(place) for place in (HOST, FILE))
        return HostMemory(private, file, private + file, None)

    def alive(self) -> Alive:
        on_device = {f"device_{figure}_peak_bytes": peak.alive for figure, peak in self._device_peaks.items()}
        private, file = (self._host_peaks[place].alive for place in (HOST, FILE))
        return on_device | {"host_private_peak_bytes": private, "host_file_peak_bytes": file}
