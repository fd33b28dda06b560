"""`nn.init.trunc_normal_` without values: from torch 2.14 on it asks the device whether a value is out of bounds.

Those that are get drawn again, until none is. How many are left after each draw is known beforehand, as many draw.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from bench.meters.simulated.simulated_device import SimulatedDevice, storage_of

# With a share of values inside the bounds that is no larger, PyTorch draws in another way.
LEAST_INSIDE = 0.3


def draw(world: SimulatedDevice, original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function to be there instead of PyTorch's."""

    def trunc_normal(tensor: Tensor, mean: float, std: float, a: float, b: float, **options: Any) -> Tensor:
        inside = (math.erf((b - mean) / (std * 2**0.5)) - math.erf((a - mean) / (std * 2**0.5))) / 2
        if inside <= LEAST_INSIDE or not world.holds_no_values(storage_of(tensor)):
            return original(tensor, mean, std, a, b, **options)
        with world.answering(_is_any_outside(tensor.numel(), 1 - inside)):
            return original(tensor, mean, std, a, b, **options)

    return trunc_normal


def _is_any_outside(values: int, share: float) -> Iterator[bool]:
    """Yield, draw by draw, True while a value is expected to be still out of bounds."""
    expected = float(values)
    while True:
        expected *= share
        yield expected >= 1
