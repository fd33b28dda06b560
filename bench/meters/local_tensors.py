"""The tensors of a model that are in this process."""

from typing import Any

import torch
from torch import Tensor, nn


def local_tensors(model: nn.Module) -> list[Tensor]:
    """Return the parameters and buffers of a model, and of a distributed one the part of this rank."""
    with torch.no_grad():
        return [_local(tensor) for tensor in (*model.parameters(), *model.buffers())]


def _local(tensor: Any) -> Tensor:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
