"""Modules that are built, moved and filled on a device."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from bench.meters.oracle.operation_cases.copies import HALF, square

META = torch.device("meta")


def linear(**options: Any) -> nn.Linear:
    return nn.Linear(1000, 1000, **options)


def state() -> dict[str, Tensor]:
    """Return the state dict of `linear()`, on the host."""
    return {"weight": square(), "bias": torch.ones(1000)}


class Tied(nn.Module):
    """Two names for one weight, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(1000, 1000)
        self.head = nn.Linear(1000, 1000, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("mask", torch.ones(1000, 1000).tril())


def encoder() -> nn.Module:
    return nn.TransformerEncoderLayer(256, 4)


def loaded(module: nn.Module, state_dict: dict[str, Tensor], **options: Any) -> nn.Module:
    module.load_state_dict(state_dict, **options)
    return module


def _under(d: torch.device) -> nn.Module:
    with d:
        return encoder()


def _with_default(d: torch.device) -> nn.Module:
    torch.set_default_device(d)
    try:
        return linear()
    finally:
        torch.set_default_device(None)


def _with_default_dtype(d: torch.device) -> nn.Module:
    torch.set_default_dtype(HALF)
    try:
        with d:
            return linear()
    finally:
        torch.set_default_dtype(torch.float32)


def _swapped(d: torch.device) -> nn.Module:
    """Moved as it will be one day, see `torch.__future__`."""
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        return linear().to(d)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def _by_parameter(d: torch.device) -> nn.Module:
    """Move as libraries that dispatch do: each parameter is replaced by one on the device."""
    module = linear(device=META)
    for name, value in state().items():
        setattr(module, name, nn.Parameter(value.to(d), requires_grad=False))
    return module


def _by_data(d: torch.device) -> nn.Module:
    module = linear()
    for parameter in module.parameters():
        parameter.data = parameter.data.to(d)
    return module


def _layer_by_layer(d: torch.device) -> nn.Module:
    """Fill each layer on the host and move it, before the next."""
    layers = nn.Sequential(*(linear() for _ in range(4)))
    for layer in layers:
        loaded(layer, state()).to(d)
    return layers


def _frozen(d: torch.device) -> nn.Module:
    return linear().requires_grad_(False).to(d, HALF)


def _optimizer_state(d: torch.device) -> Any:
    """Moved to the device by `Optimizer.load_state_dict`."""
    module = linear()
    optimizer = torch.optim.Adam(module.parameters())
    moments = {
        at: {"step": torch.tensor(1.0), "exp_avg": torch.ones(shape), "exp_avg_sq": torch.ones(shape)}
        for at, shape in enumerate(((1000, 1000), (1000,)))
    }
    saved = {"state": moments, "param_groups": optimizer.state_dict()["param_groups"]}
    module.to(d)
    moved = torch.optim.Adam(module.parameters())
    moved.load_state_dict(saved)
    return module, moved


def _channels_last(device: torch.device) -> nn.Module:
    convolution: Any = nn.Conv2d(64, 64, 3)
    return convolution.to(memory_format=torch.channels_last).to(device)


MODELS: dict[str, Callable[[torch.device], Any]] = {
    "Module.to": lambda d: linear().to(d),
    "Module.cuda": lambda _: linear().cuda(),
    "Module.to half": lambda d: linear().to(d, HALF),
    "Module.to half, not waited for": lambda d: linear().to(d, HALF, non_blocking=True),
    "Module.to, then half": lambda d: linear().to(d).half(),
    "Module.half, then to": lambda d: linear().half().to(d),
    "Module.to, swapped": _swapped,
    "Module.to channels last": _channels_last,
    "Module.to of tied weights": lambda d: Tied().to(d),
    "Module.to of frozen weights": _frozen,
    "Module.to of an encoder": lambda d: encoder().to(d),
    "Module.bfloat16 on the device": lambda d: encoder().to(d).bfloat16(),
    "to_empty": lambda d: linear(device=META).to_empty(device=d),
    "to_empty of a module of the host": lambda d: linear().to_empty(device=d),
    "to_empty of tied weights": lambda d: Tied().to_empty(device=d),
    "built on the device": lambda d: linear(device=d),
    "built on the device, half": lambda d: linear(device=d, dtype=HALF),
    "built under the device": _under,
    "built by default": _with_default,
    "built by default, half": _with_default_dtype,
    "built without values": lambda d: skip_init(nn.Linear, 1000, 1000, device=d),
    "Embedding": lambda d: nn.Embedding(5000, 100, device=d),
    "Embedding with padding": lambda d: nn.Embedding(5000, 100, padding_idx=0, device=d),
    "Embedding of weights": lambda d: nn.Embedding.from_pretrained(square()).to(d),
    "Conv2d": lambda d: nn.Conv2d(64, 64, 3, device=d),
    "MultiheadAttention": lambda d: nn.MultiheadAttention(256, 4, device=d),
    "BatchNorm to": lambda d: nn.BatchNorm2d(1000).to(d),
    "deepcopy": lambda d: copy.deepcopy(linear().to(d)),
    "gradients to": lambda d: _with_gradients().to(d),
    "gradients to half": lambda d: _with_gradients().to(d, HALF),
    "recurrent layer to": lambda d: nn.LSTM(100, 100, 2).to(d),
    "layer by layer": _layer_by_layer,
    "parameter by parameter": _by_parameter,
    "data by data": _by_data,
}


def _with_gradients() -> nn.Module:
    module = linear()
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    return module


STATE_DICTS: dict[str, Callable[[torch.device], Any]] = {
    "load_state_dict from the host": lambda d: loaded(linear(device=d), state()),
    "load_state_dict from the device": lambda d: loaded(linear(device=d), linear(device=d).state_dict()),
    "load_state_dict half from float": lambda d: loaded(linear(device=d, dtype=HALF), state()),
    "load_state_dict half from float of the device": lambda d: loaded(
        linear(device=d, dtype=HALF), linear(device=d).state_dict()
    ),
    "load_state_dict assign": lambda d: loaded(linear(device=META), linear(device=d).state_dict(), assign=True),
    "load_state_dict assign on the host, then to": lambda d: loaded(linear(device=META), state(), assign=True).to(d),
    "load_state_dict assign of moved": lambda d: loaded(
        linear(device=META), {name: value.to(d) for name, value in state().items()}, assign=True
    ),
    "load_state_dict on the host, then to": lambda d: loaded(linear(), state()).to(d),
    "to_empty, load_state_dict": lambda d: loaded(linear(device=META).to_empty(device=d), state()),
    "state_dict, cloned": lambda d: {name: value.clone() for name, value in linear(device=d).state_dict().items()},
    "state_dict, kept beside": lambda d: (module := linear(device=d), module.state_dict()),
    "optimizer": _optimizer_state,
}
