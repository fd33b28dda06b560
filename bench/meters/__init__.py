"""How a load is measured. A meter knows nothing of strategies: it is handed functions."""

import os

import torch

from bench.meters.cuda import CudaMeter
from bench.meters.device import DeviceMeter
from bench.meters.sim import SimMeter
from bench.meters.simulated.allocator_settings import AllocatorSettings, settings_of


def device_meter(
    device: str,
    source: str | None = None,
    settings: AllocatorSettings | None = None,
    *,
    planned: bool = False,
    explained: bool = False,
) -> DeviceMeter:
    """The meter of `cpu`, `sim`, `cuda` or `cuda:N`.

    `source` is the file of the recipe, whose lines explain the peaks: on `sim` and in a plan always, elsewhere if
    they are to be `explained`, which has its price. `settings` are those of the simulated allocator; without
    them the environment's. `planned`: for a load of which nothing is real.
    """
    named = torch.device("cuda" if device == "sim" else device)
    if device == "sim":
        return SimMeter(named, source, settings or settings_of(os.environ), planned=planned)
    if named.type == "cpu":
        # The settings are those of an allocator that is not asked for anything there.
        counts = planned or explained
        return SimMeter(named, source, AllocatorSettings(), planned=planned) if counts else DeviceMeter(named)
    return CudaMeter(named, source if explained else None)
