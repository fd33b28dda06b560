"""How a load is measured. A meter knows nothing of strategies: it is handed functions."""

import torch

from bench.meters.cpu import CpuMeter
from bench.meters.cuda import CudaMeter
from bench.meters.device import DeviceMeter

DEVICE_METERS: dict[str, type[CpuMeter] | type[CudaMeter]] = {"cpu": CpuMeter, "cuda": CudaMeter}


def device_meter(device: str) -> DeviceMeter:
    """The meter of `cpu`, `cuda` or `cuda:N`."""
    named = torch.device(device)
    return DEVICE_METERS[named.type](named)
