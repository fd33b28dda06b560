"""The modules that blueprints are made of, and what can be asked of any model."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


class BlueprintModule(nn.Module):
    """Computes one number out of every bit that it reaches by name, the same on every device."""

    def forward(self) -> Tensor:
        total = torch.zeros((), dtype=torch.int64)
        for module in self.modules():
            for name in (*module._parameters, *module._buffers):
                tensor = getattr(module, name)
                if tensor is not None:
                    content = (
                        tensor.detach().cpu().clone(memory_format=torch.contiguous_format).view(-1).view(torch.uint8)
                    )
                    total = total * 31 + (content.long() * torch.arange(1, len(content) + 1)).sum()
        return total


class BlueprintModuleWithState(BlueprintModule):
    """Keeps something that is no tensor of it in the state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.extra: Any = "not loaded"

    def get_extra_state(self) -> Any:
        return self.extra

    def set_extra_state(self, state: Any) -> None:
        self.extra = state


def named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and buffer under every name that it has."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)
