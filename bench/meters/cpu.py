"""Device `cpu`: one pool, so what the weights take there is the host meter's to count."""

import torch

from bench.meters.device import DevicePeaks


class CpuMeter:
    """Counts nothing: a weight on the CPU is host memory like every other."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def start(self) -> None:
        pass

    def peaks(self) -> DevicePeaks:
        return DevicePeaks()

    def held_bytes(self) -> int | None:
        return None

    def free_bytes(self) -> int | None:
        return None

    def synchronize(self) -> None:
        pass
