"""Models of modules that have more than weights: tensors that no checkpoint has, or weights that are held in lists."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


class RecurrentLayers(nn.Module):
    """Layers that hold their weights in lists, too, and by weak references."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.outer = nn.LSTM(width, width, layers, bidirectional=True)
        self.inner = nn.ModuleList([nn.GRU(width, width, layers, bias=False), nn.RNN(width, width)])

    def forward(self) -> Tensor:
        asked = self.inner[1].get_parameter("weight_ih_l0")[None]
        # cuDNN may compute with ten bits of a weight, and what is summed up may be next to nothing.
        with torch.backends.cudnn.flags(enabled=False):
            return torch.cat([layer(asked)[0].flatten() for layer in (self.outer, *self.inner)])


class TensorHolder:
    """No module: what it holds nobody moves."""

    def __init__(self, values: Tensor) -> None:
        self.values = values


class TensorAttributes(nn.Module):
    """Tensors that are attributes, in lists, dicts and objects of other types."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.scale = torch.linspace(1, 2, width)
        self.slopes = [torch.full((width,), float(number)) for number in range(layers)]
        self.biases = {number: torch.arange(float(width)) + number for number in range(layers)}
        self.table = TensorHolder(torch.arange(width) % 3)

    def forward(self) -> Tensor:
        device = next(self.parameters()).device
        x = self.scale.to(device)
        for layer, slope, bias in zip(self.layers, self.slopes, self.biases.values(), strict=True):
            x = layer(x) * slope.to(device) + bias.to(device)
        return (x * self.table.values.to(device)).sum()


class DerivedBuffers(nn.Module):
    """Buffers that are computed from persistent buffers, or filled in one by one, and are in no state dict."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, width))
        self.register_buffer("frequencies", 1 / 100 ** (torch.arange(width) / width))
        angles = torch.outer(torch.arange(layers), self.get_buffer("frequencies"))
        table = torch.empty(layers, 2 * width)
        table[:, ::2], table[:, 1::2] = angles.sin(), angles.cos()
        self.register_buffer("table", table, persistent=False)

    def forward(self) -> Tensor:
        return self.get_buffer("table").sum() * self.weight.sum() * self.get_buffer("frequencies").sum()


class RotaryBuffers(nn.Module):
    """Buffers as models of transformers have them: `inv_freq`, and its copy, `position_ids` and `embed_scale`."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(width, width, padding_idx=0)
        self.layers = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(layers))
        self.head = nn.Linear(width, width, bias=False)
        inv_freq = 1.0 / (10000 ** (torch.arange(0, 2 * width, 2, dtype=torch.int64).float() / width))
        self.register_buffer("inv_freq", inv_freq, persistent=False)
        self.register_buffer("original_inv_freq", inv_freq.clone(), persistent=False)
        self.register_buffer("position_ids", torch.arange(width).expand((1, -1)), persistent=False)
        self.register_buffer("embed_scale", torch.tensor(width**0.5), persistent=False)
        self.rotated = self.inv_freq

    def forward(self) -> Tensor:
        x = self.embed(self.get_buffer("position_ids")) * self.get_buffer("embed_scale")
        for layer in self.layers:
            x = layer(x) * self.get_buffer("inv_freq").cos()
        return (self.head(x) + self.get_buffer("original_inv_freq")).double().sum()


KINDS: dict[str, Callable[[int, int], nn.Module]] = {
    "recurrent": RecurrentLayers,
    "attributes": TensorAttributes,
    "derived": DerivedBuffers,
    "rotary": RotaryBuffers,
}


@dataclass(frozen=True)
class StatefulModel:
    """A model of a kind of `KINDS`."""

    kind: str
    width: int
    layers: int

    def build(self) -> nn.Module:
        return KINDS[self.kind](self.width, self.layers)

    def saved(self) -> nn.Module:
        model, generator = self.build(), torch.Generator().manual_seed(1)
        for tensor in model.state_dict().values():
            tensor.uniform_(-1, 1, generator=generator)
        return model

    def state_dict(self, model: nn.Module) -> dict[str, Any]:
        return model.state_dict()

    def suspects(self) -> set[str]:
        """The names of buffers that no checkpoint has."""
        model = self.build()
        return dict(model.named_buffers()).keys() - model.state_dict().keys()

    def __str__(self) -> str:
        return f"{self.kind}: {self.layers} layers of width {self.width}"
