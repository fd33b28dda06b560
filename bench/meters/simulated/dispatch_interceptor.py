"""The interceptor of all operations, those inside of calls included: it enters their storages into the ledger."""

from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.meters.simulated.kernels import Kernels
from bench.meters.simulated.ledger import FILE, HOST, ON_HOST, PINNED
from bench.meters.simulated.simulated_device import (
    META,
    SKELETON,
    SimulatedDevice,
    is_distributed,
    is_meta,
    storage_of,
    tensors,
)

aten = torch.ops.aten

# Operations that read what they are given last.
_COPIES = (aten._to_copy.default, aten.copy_.default)

# Operations that return a view, always: nothing is made, read or written.
_VIEWS = frozenset(
    (
        *(aten.detach.default, aten.alias.default, aten.view.default, aten.as_strided.default, aten.expand.default),
        *(aten.slice.Tensor, aten.select.int, aten.split.Tensor, aten.t.default, aten.transpose.int),
        *(aten.permute.default, aten.unsqueeze.default),
    )
)

# Operations that put values into a tensor, and do nothing else.
_FILLS = (
    aten.uniform_.default,
    aten.normal_.default,
    aten.fill_.Scalar,
    aten.zero_.default,
    aten.triu_.default,
    aten.tril_.default,
)


class DispatchInterceptor(TorchDispatchMode):
    """Runs operations where they need no values, and enters the storages that they make."""

    def __init__(self, world: SimulatedDevice, kernels: Kernels) -> None:
        super().__init__()
        self._world = world
        self._kernels = kernels

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing here is compiled; to say so to PyTorch's compiler would import it, which takes seconds."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # An operation on a distributed tensor is intercepted on its local one.
        if any(map(is_distributed, types)):
            return NotImplemented
        if func in _VIEWS:
            return func(*args, **(kwargs or {}))
        return self._run(func, args, kwargs or {})

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation, and enter what it makes."""
        world, effects = self._world, _effects(func)
        inputs = tensors((*args, *kwargs.values()))
        storages = [storage_of(tensor) for tensor in inputs]
        places = [world.place_of(storage) for storage in storages]
        on_device = next((place for place in places if place.startswith("cuda")), None)
        # A tensor is made contiguous for a copy where it is.
        named = None if func is aten.clone.default else world.named
        brought = self._kernels.brought(func, args, kwargs, on_device or named)
        # Without bytes there is nothing to fill, which PyTorch takes a millisecond to find out.
        out = args[0] if effects.fills and is_meta(args[0]) else func(*brought, **kwargs)
        changed = tensors(args[at] if at < len(args) else kwargs.get(name) for at, name in effects.written)
        if effects.written:
            # It may have given a tensor another storage.
            storages = [storage_of(tensor) for tensor in inputs]
        known = {storage._cdata for storage in storages}
        fresh = [tensor for tensor in tensors((out,)) if storage_of(tensor)._cdata not in known]
        if not (fresh or changed):
            return out
        if on_device and (not ON_HOST.isdisjoint(map(world.place, changed)) or self._has_values(fresh)):
            raise world.refusal(str(func))
        for tensor in changed:
            world.ledger.resized(storage_of(tensor))
        for tensor in fresh:
            on_host = not is_meta(tensor) or (world.planned and not ON_HOST.isdisjoint(places))
            world.adopt(storage_of(tensor), named or on_device or (HOST if on_host else SKELETON))
        self._kernels.product(func, args, out, on_device)
        if effects.copies:
            self._copied(inputs[-1], places[-1], out, non_blocking=_non_blocking(func, args, kwargs))
        elif FILE in places:
            for tensor, place in zip(inputs, places, strict=True):
                if place == FILE:
                    world.read(tensor)
        return out

    def _has_values(self, fresh: list[Tensor]) -> bool:
        """Return True if a tensor came to the host that no call asked to be made there."""
        return self._world.named != HOST and not all(map(is_meta, fresh))

    def _copied(self, source: Tensor, place: str, destination: Tensor, *, non_blocking: bool) -> None:
        """Do for a copy between two places what CUDA does beside its result."""
        target = self._world.place(destination)
        if place == SKELETON != target:
            raise NotImplementedError("Cannot copy out of meta tensor; no data!")
        if place in ON_HOST and target.startswith("cuda"):
            # Page-locked memory is resident.
            if place != PINNED:
                self._world.read(source)
            with self._world.one_copy:
                self._make_in_between(target, destination, source, non_blocking=non_blocking)
        elif place == FILE:
            self._world.read(source)

    def _make_in_between(self, target: str, destination: Tensor, source: Tensor, *, non_blocking: bool) -> None:
        """Make what CUDA makes where a copy cannot be one transfer: see `copy_kernel_cuda` in `Copy.cu`.

        A tensor with gaps is made contiguous where it is. A conversion is the host's work, unless the copy is
        non-blocking.
        """
        if destination.dtype == source.dtype and _same_order(destination, source):
            return
        converted = source if non_blocking else source.to(destination.dtype)
        in_order = converted.expand_as(destination).contiguous()
        for made in (converted, in_order):
            if is_meta(made):
                self._world.adopt(storage_of(made), HOST)
        if not destination.is_contiguous() or in_order.dtype != destination.dtype:
            staged = torch.empty(destination.shape, dtype=in_order.dtype, device=META)
            self._world.adopt(storage_of(staged), target)


@dataclass(frozen=True)
class _Effects:
    """The effects of an operation, and the arguments that it writes to, by position and name."""

    copies: bool
    fills: bool
    written: tuple[tuple[int, str], ...]


@cache
def _effects(func: Any) -> _Effects:
    arguments = enumerate(func._schema.arguments)
    written = tuple((at, one.name) for at, one in arguments if one.alias_info and one.alias_info.is_write)
    return _Effects(func in _COPIES, func in _FILLS, written)


def _non_blocking(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return bool(kwargs.get("non_blocking") or (func is aten.copy_.default and args[2:] == (True,)))


def _same_order(one: Tensor, other: Tensor) -> bool:
    """Return True if the values of two tensors lie in memory in the same order and without gaps."""
    if one.shape != other.shape:
        return False
    if one.is_contiguous() and other.is_contiguous():
        return True
    # In memory without gaps, as a transposed matrix is: from the innermost dimension out, each spans the ones before.
    spans = sorted((stride, size) for stride, size in zip(one.stride(), one.shape, strict=True) if size > 1)
    return one.stride() == other.stride() and all(
        stride == prod(size for _, size in spans[:place]) for place, (stride, _) in enumerate(spans)
    )
