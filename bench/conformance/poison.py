"""Memory that nobody has loaded yet is told from memory that somebody has."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor


@contextmanager
def poisoned() -> Iterator[None]:
    """In this block uninitialised tensors hold NaN, the largest integer, or True, so that none is right by luck."""
    before = torch.get_deterministic_debug_mode()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)


def payload(dtype: torch.dtype, count: int, generator: torch.Generator, *, special: bool) -> Tensor:
    """`count` values of random bits, none that of `poisoned` memory; of booleans, the first and the last are not.

    `special`: of values that arithmetic treats apart, which a copy must not: NaNs with bits of their own, quiet and
    signalling, infinities, negative zero, the smallest denormal.
    """
    if dtype == torch.bool:
        values = torch.randint(0, 2, (count,), dtype=torch.uint8, generator=generator)
        # A view may see the whole, every second one, or the tail: in each is one that was written.
        values[:1] = values[-1:] = 0
        return values.view(dtype)
    if special:
        chosen = _special(dtype)
        values = chosen[torch.arange(count) % len(chosen)]
    else:
        values = torch.randint(0, 256, (count, dtype.itemsize), dtype=torch.uint8, generator=generator)
    values[:, 0] ^= (values == _poison(dtype)).all(1).to(torch.uint8)
    return values.reshape(-1).view(dtype)


@cache
def _poison(dtype: torch.dtype) -> Tensor:
    """The bytes of a value that nobody has written."""
    with poisoned():
        return torch.empty(1, dtype=dtype).view(torch.uint8)


def _special(dtype: torch.dtype) -> Tensor:
    """Bytes `[value, byte]` of values like those, as far as a dtype has them."""
    ones = torch.full((dtype.itemsize,), 0xFF, dtype=torch.uint8)
    smallest, negative = torch.zeros_like(ones), torch.zeros_like(ones)
    smallest[0], negative[-1] = 1, 0x80
    chosen = [ones, smallest, negative]
    if dtype.is_floating_point and dtype.itemsize > 1:
        infinity = torch.tensor([float("inf")], dtype=dtype).view(torch.uint8)
        chosen += [infinity, infinity | negative, infinity | smallest]
    return torch.stack(chosen)
