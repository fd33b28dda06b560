"""Checks that a state dict is one of a model."""

import torch

from bench.strategies.reading.assign import kind


def with_tied_names(state_dict, model):
    """A state dict, and what the model has under another name of a tensor in it."""

    def which(tensor):
        return tensor.untyped_storage(), tensor.storage_offset(), tensor.dtype, tensor.shape, tensor.stride()

    tensors = {name: t for name, t in model.state_dict().items() if isinstance(t, torch.Tensor)}
    held = {which(tensors[name]): t for name, t in state_dict.items() if name in tensors}
    return {name: held[which(t)] for name, t in tensors.items() if which(t) in held} | state_dict


def require_fit(path, model, state_dict, dtype=None, missing=()):
    """Raise `ValueError` unless a state dict is the model's without the `missing` names, with nothing to broadcast.

    With a `dtype`, that of floating-point tensors is free: they are cast.
    """
    if values := [name for name, value in state_dict.items() if not is_state(name, value)]:
        raise ValueError(f"{path} holds {values}, which are no tensors: save model.state_dict() by itself")
    own = {name: value for name, value in model.state_dict().items() if name not in missing}
    if differing := form(own, dtype) ^ form(state_dict, dtype):
        names = sorted({name for name, *_ in differing})
        if form(own, torch.float32) == form(state_dict, torch.float32):
            raise ValueError(f"{path} and the model differ in dtypes: {names}; dtype= casts what is floating-point")
        raise ValueError(f"{path} and the model differ in names, dtypes, shapes, strides or ties: {names}")


def is_state(name, value):
    """Return True if a value can be in a state dict: a tensor, or the extra state of a module."""
    return isinstance(value, torch.Tensor) or str(name).endswith("_extra_state")


def form(tensors, dtype=None):
    """All that has to be equal of two state dicts, but for their values; floating-point tensors are of the `dtype`."""
    found, first = set(), {}  # `first`: of every storage the first name, and where it starts. Tied names share it.
    for name, t in taken_apart(tensors):
        if name.endswith("_extra_state"):
            found.add((name,))
            continue
        if is_made_of_others(t):
            found.add((name, kind(t, dtype), t.shape, type(t)))
        else:
            other, start = first.setdefault(t.untyped_storage() if t.numel() else name, (name, t.storage_offset()))
            found.add((name, kind(t, dtype), t.shape, t.stride(), other, t.storage_offset() - start))
    return found


def taken_apart(tensors):
    """Every tensor with its name, and those that one is made of, as a quantised one is, behind it."""
    for name, tensor in sorted(tensors.items()):
        yield name, tensor
        if is_made_of_others(tensor):
            yield from taken_apart({f"{name}.{part}": getattr(tensor, part) for part in tensor.__tensor_flatten__()[0]})


def is_made_of_others(tensor):
    """Such a tensor has no bytes, and its dtype and strides are those that it computes as if it had."""
    return hasattr(tensor, "__tensor_flatten__")


def require_plain(model):
    """Raise `ValueError` if a model has tensors that are made of others: to allocate them takes their own library."""
    if made := [name for name, tensor in model.state_dict().items() if is_made_of_others(tensor)]:
        raise ValueError(f"{made} are made of other tensors, as quantised ones are: they cannot be allocated by dtype")
