"""Seeds before a first forward pass, and the tensors in its result."""

import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

PAGE_BYTES = 4096


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed all random numbers in this block, and restore the generators after it."""
    numpy, state = sys.modules.get("numpy"), random.getstate()
    numpy_state = numpy.random.get_state() if numpy else None
    with torch.random.fork_rng(devices=[device] if device and device.type == "cuda" else []):
        torch.manual_seed(seed)
        random.seed(seed)
        if numpy:
            numpy.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(state)
            if numpy:
                numpy.random.set_state(numpy_state)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield every tensor in the result of a model, as a plain one."""
    if isinstance(value, Tensor):
        if value.is_nested:
            yield from value.unbind()
        elif value.is_quantized:
            yield value.dequantize()
        else:
            yield value.to_dense() if value.layout != torch.strided else value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from tensors_in(one)
    elif isinstance(value, tuple | list):
        for one in value:
            yield from tensors_in(one)
    elif is_dataclass(value):
        for field in fields(value):
            yield from tensors_in(getattr(value, field.name))


def read_every_page(tensor: Tensor) -> None:
    """Read every page of a tensor in host memory; other devices have no pages to load."""
    storage = tensor.untyped_storage()
    if storage.device.type == "cpu":
        torch.empty(0, dtype=torch.uint8).set_(storage)[::PAGE_BYTES].sum()
