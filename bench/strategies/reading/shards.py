"""Shards of tensors that are divided among ranks: their part of a tensor, memory for them, their bytes in a file.

Which part that is PyTorch tells where it needs to know itself: `torch.distributed.checkpoint` asks the same function.
"""

from itertools import product
from math import prod

import torch
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from bench.strategies.reading.assign import assign, empty, move_others, weights
from bench.strategies.reading.skeleton import skeleton


def skeleton_to_shard(build, dtype=None):
    """Build a skeleton whose weights have the dtypes that they end in."""
    model = skeleton(build)
    if dtype:
        assign(model, [(name, empty(one, "meta", dtype)) for name, one in weights(model).items()])
    return model


def materialize(model, device):
    """Give every weight of a skeleton memory on the device: a shard of it, where it is sharded, and unfilled.

    `to_empty` would untie what has several names. Buffers that no checkpoint has are moved there.
    """
    assign(
        model,
        ((name, torch.empty_like(one, device=device, requires_grad=False)) for name, one in weights(model).items()),
    )
    move_others(model, device)


def local(tensor):
    """Return what this rank has of a tensor."""
    with torch.no_grad():
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def part(tensor):
    """Return the part of a tensor that this rank has: a slice a dimension."""
    if not isinstance(tensor, DTensor):
        return tuple(slice(0, size) for size in tensor.shape)
    shape, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return tuple(slice(start, start + size) for start, size in zip(offset, shape, strict=True))


def is_replicated(tensor):
    """Return True if every rank has all of a tensor."""
    return not isinstance(tensor, DTensor) or all(placement.is_replicate() for placement in tensor.placements)


def runs(shape, slices, itemsize):
    """Return the ranges of bytes of a part of a contiguous tensor, in the order of its values."""
    sizes = [one.stop - one.start for one in slices]
    if not all(sizes):
        return
    if not shape:
        yield 0, itemsize
        return
    # What follows the last dimension that is divided lies together.
    last = max((place for place, size in enumerate(sizes) if size != shape[place]), default=0)
    steps = [itemsize * prod(shape[place + 1 :]) for place in range(len(shape))]
    size = sizes[last] * steps[last]
    outer = (range(one.start * step, one.stop * step, step) for one, step in zip(slices[:last], steps, strict=False))
    for index in product(*outer):
        start = slices[last].start * steps[last] + sum(index)
        yield start, start + size


def batches(ranges, step):
    """Ranges of bytes, cut and put together: every batch has so many bytes, the last one what is left."""
    batch, room = [], step
    for first, end in ranges:
        start = first
        while start < end:
            taken = min(end - start, room)
            batch.append((start, start + taken))
            start, room = start + taken, room - taken
            if not room:
                yield batch
                batch, room = [], step
    if batch:
        yield batch
