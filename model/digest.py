"""Digests that identify a tensor to the bit."""

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from model.state_dict import first_names


def bytes_of(tensor: Tensor) -> memoryview:
    """Return the bytes of a contiguous tensor on the host, not copied: the tensor has to outlive them."""
    return memoryview((ctypes.c_ubyte * tensor.nbytes).from_address(tensor.data_ptr())).cast("B")


@dataclass(frozen=True)
class TensorDigest:
    """Dtype, shape and SHA-256 of a tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    sha256: str
    # Its strides where it was saved, and the first of its names: neither identifies it.
    stride: tuple[int, ...] = field(default=(), compare=False)
    first: str = field(default="", compare=False)

    @classmethod
    def of(cls, tensor: Tensor) -> "TensorDigest":
        """Make the digest of a tensor on any device; one that is not contiguous, or not on the host, is copied."""
        values = tensor.detach().cpu().contiguous()
        return cls(tensor.dtype, tuple(tensor.shape), sha256(bytes_of(values)).hexdigest(), tensor.stride())

    def as_json(self) -> list[Any]:
        return [str(self.dtype).removeprefix("torch."), list(self.shape), self.sha256, list(self.stride), self.first]

    @classmethod
    def from_json(cls, kept: list[Any]) -> "TensorDigest":
        dtype, shape, digest, stride, first = kept
        return cls(getattr(torch, dtype), tuple(shape), digest, tuple(stride), first)


def digests(state_dict: Mapping[str, Any], to: torch.dtype | None = None) -> dict[str, list[Any]]:
    """Return the digest of every tensor of a state dict as JSON; floating-point tensors are cast to `to` first."""
    firsts = first_names(state_dict)
    tensors = (
        (name, value.to(to) if to and value.is_floating_point() else value)
        for name, value in state_dict.items()
        if isinstance(value, Tensor)
    )
    return {name: replace(TensorDigest.of(value), first=firsts[name]).as_json() for name, value in tensors}
