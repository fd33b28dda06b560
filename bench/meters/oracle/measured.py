"""The figures of a meter for one piece of work on a device: its peaks, and the bytes held afterwards."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from bench.meters.device import DeviceMeter
from bench.meters.oracle.agreement import Figures


def measured(
    meter: DeviceMeter, rehearse: Callable[[torch.device], object], do: Callable[[torch.device], Any]
) -> Figures:
    """Figures in bytes of what `do` does, with what it returns still there at the end."""
    with meter.watching():
        rehearse(meter.device)
        meter.start()
        kept = do(meter.device)
        meter.synchronize()
        figures = asdict(meter.peaks()) | {"held_bytes": meter.held_bytes()}
        del kept
    return figures
