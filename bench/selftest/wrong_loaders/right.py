"""A right load, and what those that make something wrong of it have to hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Build = Callable[[], nn.Module]


def right(build: Build, path: Path, device: torch.device) -> nn.Module:
    """Load the model as it was saved."""
    loaded = build().to(device)
    loaded.load_state_dict(torch.load(path, map_location=device, weights_only=True))
    return loaded


def spoilt(loaded: nn.Module) -> nn.Module:
    """Change one bit of the last value of a matrix: the outputs are within the tolerance."""
    bits(weight_of(loaded))[-1] ^= 1
    return loaded


def patch(place: Any, name: str, value: object) -> None:
    setattr(place, name, value)


def weight_of(loaded: nn.Module) -> Tensor:
    return loaded.get_parameter("trf_blocks.0.ff.layers.0.weight").detach()


def bits(tensor: Tensor) -> Tensor:
    return tensor.view(torch.int32).view(-1)


def put(loaded: nn.Module, tensor: Tensor, kind: Any = nn.Parameter) -> nn.Module:
    loaded.get_submodule("trf_blocks.0.ff.layers.0").weight = kind(tensor)
    return loaded
