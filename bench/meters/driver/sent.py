"""Tensors of a device as they are sent to the card: by their places in its memory."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class SentTensor:
    """A tensor on a device: the offset of its storage in bytes, and how its elements lie in it."""

    offset: int
    bytes: int
    dtype: torch.dtype
    size: tuple[int, ...]
    stride: tuple[int, ...]
    storage_offset: int
    conjugate: bool
    negative: bool

    @classmethod
    def of(cls, tensor: torch.Tensor, offset_of: Callable[[int], int]) -> "SentTensor":
        """Describe `tensor`; `offset_of` turns the address of a storage into its offset."""
        storage = tensor.untyped_storage()
        return cls(
            offset_of(storage.data_ptr()) if storage.nbytes() else 0,
            storage.nbytes(),
            tensor.dtype,
            tuple(tensor.size()),
            tensor.stride(),
            int(tensor.storage_offset()),
            tensor.is_conj(),
            tensor.is_neg(),
        )

    def tensor(self, memory: torch.Tensor) -> torch.Tensor:
        """Return the same tensor on the CPU, in `memory`: all bytes of the device, one dimension of uint8."""
        if not self.bytes:
            return torch.empty_strided(self.size, self.stride, dtype=self.dtype)
        storage = memory.untyped_storage()[self.offset : self.offset + self.bytes]
        whole = torch.empty(0, dtype=self.dtype).set_(storage)
        tensor = whole.as_strided(self.size, self.stride, self.storage_offset)
        # Both are functions of PyTorch's own kernels.
        tensor = torch._neg_view(tensor) if self.negative else tensor  # noqa: SLF001
        return tensor.conj() if self.conjugate else tensor


@dataclass(frozen=True)
class SentValues:
    """A tensor of the host: its bytes. Pickling one takes longer, and cannot do it for every dtype."""

    values: bytes
    dtype: torch.dtype
    size: tuple[int, ...]

    @classmethod
    def of(cls, tensor: torch.Tensor) -> "SentValues":
        """Copy the values of `tensor`."""
        plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
        count = plain.numel() * plain.element_size()
        return cls(ctypes.string_at(plain.data_ptr(), count) if count else b"", plain.dtype, tuple(plain.size()))

    def tensor(self) -> torch.Tensor:
        """Return a tensor with these values."""
        if not self.values:
            return torch.empty(self.size, dtype=self.dtype)
        return torch.frombuffer(bytearray(self.values), dtype=torch.uint8).view(self.dtype).reshape(self.size)


@dataclass(frozen=True)
class Computation:
    """An operation of aten and its arguments.

    `results` are the places that its results are to be written to, None for one that is an argument; without `results`
    they are sent back. `seed` is that of random numbers, for an operation that draws any.
    """

    name: str
    overload: str
    args: Any
    kwargs: Any
    results: Any
    seed: int | None = None


def replaced(value: Any, kind: type | tuple[type, ...], replace: Callable[[Any], Any]) -> Any:
    """Return `value` with `replace` of every object of `kind` that is in its lists and dicts."""
    if isinstance(value, kind):
        return replace(value)
    if isinstance(value, (list, tuple)):
        return [replaced(one, kind, replace) for one in value]
    if isinstance(value, dict):
        return {name: replaced(one, kind, replace) for name, one in value.items()}
    return value


def tensors_in(value: Any) -> list[torch.Tensor]:
    """Return the tensors in nested lists and dicts, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for one in inside for tensor in tensors_in(one)]
