"""Device `cpu`: weights end in host memory, which the host meter counts."""

import torch

from bench.meters.allocator_settings import AllocatorSettings
from bench.meters.device import DeviceKind, DeviceMeter, MeterOptions
from bench.meters.sim import SimMeter


def cpu_meter(device: torch.device, options: MeterOptions) -> DeviceMeter:
    """Return a meter that counts nothing, or one with a ledger of the host for a plan and an explanation."""
    if options.planned or options.explained:
        # On the host no allocator is simulated, so its settings are the defaults.
        return SimMeter(device, options.source, AllocatorSettings(), planned=options.planned)
    return DeviceMeter(device)


CPU = DeviceKind("cpu", cpu_meter, is_host=True, is_plannable=True)
