"""Loads of checkpoints without bytes: memory of the host is neither filled nor read into, and so need not be there."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.serialization import skip_data

from bench.meters.child import Build

_FILLS = frozenset((Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_))


@contextmanager
def unread() -> Iterator[None]:
    """Have `torch.load` and `os.preadv` read nothing, and say that they did."""
    with skip_data(), patch.object(os, "preadv", _counted):
        yield


def unfilled(build: Build) -> Build:
    """Return the function wrapped so that it builds on the host without filling parameters."""

    def built() -> nn.Module:
        with _SkipInit():
            return build()

    return built


class _SkipInit(TorchFunctionMode):
    """Leaves tensors of the host as they are where they would be filled, by `nn.init` for one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _FILLS or getattr(func, "__module__", None) == nn.init.__name__:
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.device.type == "cpu":
                return tensor
        return func(*args, **kwargs)


def _counted(descriptor: int, buffers: Sequence[Any], offset: int, *_: int) -> int:
    """Return the number of bytes that `os.preadv` would read."""
    there = os.fstat(descriptor).st_size - offset
    return max(0, min(there, sum(memoryview(buffer).nbytes for buffer in buffers)))
