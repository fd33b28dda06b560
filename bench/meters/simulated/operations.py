"""Hears every operation, those that a call is made of included, and the storages that come of it."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.meters.simulated.ledger import FILE, HOST
from bench.meters.simulated.world import META, SKELETON, World, is_meta, storage_of, tensors

aten = torch.ops.aten

# Operations that read what they are given last.
_COPIES = (aten._to_copy.default, aten.copy_.default)

# Operations that put values into a tensor, and do nothing else.
_FILLS = (
    aten.uniform_.default,
    aten.normal_.default,
    aten.fill_.Scalar,
    aten.zero_.default,
    aten.triu_.default,
    aten.tril_.default,
)


class Operations(TorchDispatchMode):
    """Does what was asked for, where it can be done without values, and says what came of it."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        world, kwargs = self._world, kwargs or {}
        inputs = tensors((args, kwargs.values()))
        places = [world.place(tensor) for tensor in inputs]
        on_device = next((place for place in places if place.startswith("cuda")), None)
        target = world.named or on_device
        if func in _COPIES and target and target.startswith("cuda"):
            world.read(storage_of(inputs[-1]))
        if func is aten.copy_.default and places[0] == on_device != places[1]:
            non_blocking = len(args) > 2 and args[2]  # noqa: PLR2004 - its third argument
            self._copy_to_device(on_device, *args[:2], source=places[1], non_blocking=non_blocking)
        # Where there is nothing to fill, PyTorch takes a millisecond to find that out.
        out = args[0] if func in _FILLS and is_meta(inputs[0]) else func(*args, **kwargs)
        changed = inputs[:1] if func._schema.is_mutable else []
        fresh = self._fresh(out, inputs)
        if on_device and (HOST in map(world.place, changed) or not all(map(is_meta, fresh))):
            raise world.refusal(str(func))
        for tensor in changed:
            world.ledger.resized(storage_of(tensor))
        for tensor in fresh:
            on_host = not is_meta(tensor) or (world.planned and not {HOST, FILE}.isdisjoint(places))
            world.adopt(storage_of(tensor), target or (HOST if on_host else SKELETON))
        if fresh or changed:
            for tensor, place in zip(inputs, places, strict=True):
                if place == FILE:
                    world.ledger.touched(storage_of(tensor))
        return out

    def _fresh(self, out: Any, inputs: list[Tensor]) -> list[Tensor]:
        """What an operation made that shares no storage with what it was given."""
        known = {storage_of(tensor)._cdata for tensor in inputs}
        return [tensor for tensor in tensors((out,)) if storage_of(tensor)._cdata not in known]

    def _copy_to_device(
        self, place: str, destination: Tensor, copied: Tensor, *, source: str, non_blocking: bool
    ) -> None:
        """What CUDA makes in between where a copy cannot be one transfer: see `copy_kernel_cuda` in `Copy.cu`."""
        if source == SKELETON:
            raise NotImplementedError("Cannot copy out of meta tensor; no data!")
        same_dtype = destination.dtype == copied.dtype
        contiguous = destination.is_contiguous()
        if same_dtype and (destination.stride() == copied.stride() or (contiguous and copied.is_contiguous())):
            return
        between = copied if non_blocking else copied.to(destination.dtype)
        if is_meta(between):
            self._world.adopt(storage_of(between), HOST)
        if not contiguous or (non_blocking and not same_dtype):
            staged = torch.empty(destination.shape, dtype=between.dtype, device=META)
            self._world.adopt(storage_of(staged), place)
