"""Models that hold given tensors, their checkpoints, and a comparison with what was saved."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.strategies.reading import memory
from bench.strategies.reading import threads as reading_threads

CPU = torch.device("cpu")
CUDA = torch.device("cuda")
DEVICE = "cuda:0"
MIB = 2**20
PAGE_BYTES = reading_threads.PAGE_BYTES

SPECIAL = [
    float("nan"),
    float("inf"),
    -float("inf"),
    0.0,
    -0.0,
    1e-45,
    -1e-40,
    3.4e38,
    1e-6,
    65519.0,
    65520.0,
    1.00390625,
]


class Holder(nn.Module):
    """Buffers like those that it is given; what it is built with is never a value of theirs."""

    def __init__(self, tensors: dict[str, Tensor], dtype: torch.dtype | None = None) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            kind = dtype if dtype and tensor.is_floating_point() else tensor.dtype
            self.register_buffer(name, torch.empty_strided(tensor.shape, tensor.stride(), dtype=kind))


class Shared(nn.Module):
    """A parameter under two names, and a buffer that is a part of it, after another storage."""

    part: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.zeros(3))
        self.one = nn.Parameter(torch.zeros(4, 1500))
        self.other = self.one
        self.register_buffer("part", self.one.detach()[1:3].t())


class Extra(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.extra: Any = None

    def get_extra_state(self) -> Any:
        return self.extra

    def set_extra_state(self, state: Any) -> None:
        self.extra = state


def bits(tensor: Tensor) -> list[int]:
    return tensor.detach().contiguous().flatten().view(torch.uint8).tolist()


def require_same(loaded: nn.Module, saved: dict[str, Tensor], dtype: torch.dtype | None = None) -> None:
    """Every tensor is the saved one to the bit, floating-point ones as `to(dtype)` has them."""
    found = loaded.state_dict()
    assert found.keys() == saved.keys()
    for name, tensor in saved.items():
        wanted = tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
        assert (found[name].dtype, found[name].shape) == (wanted.dtype, wanted.shape), name
        assert bits(found[name]) == bits(wanted), name


def some(count: int = 10_007) -> dict[str, Tensor]:
    """Tensors of several dtypes and sizes, none of whose sizes is a multiple of a page."""
    torch.manual_seed(1)
    special = torch.tensor(SPECIAL)
    return {
        "large": torch.cat([special, torch.randn(count), special]),
        "number": torch.tensor(7.125),
        "none": torch.empty(0, 3),
        "flags": torch.arange(1001) % 3 == 0,
        "whole": torch.arange(1003) * 2**40,
        "turned": torch.randn(37, 41).t(),
        "f64": torch.cat([special.double(), torch.randn(501, dtype=torch.float64) * 1e-3]),
        "f16": torch.randn(777).half(),
    }


def saved(tensors: dict[str, Any], folder: Path) -> Path:
    torch.save(tensors, folder / "checkpoint.pt")
    return folder / "checkpoint.pt"


def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks, reads and conversions of some pages each."""
    monkeypatch.setattr(memory, "BLOCK_BYTES", 2 * PAGE_BYTES)
    monkeypatch.setattr(memory, "READ_PAGES", 1)
    monkeypatch.setattr(memory, "CONVERTED_BYTES", 4 * PAGE_BYTES)
    monkeypatch.setattr(memory, "SLOTS", 4)
