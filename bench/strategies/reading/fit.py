"""Whether a state dict is one of a model, and how its tensors become those of the model."""

import torch
from torch.overrides import TorchFunctionMode


def with_tied_names(state_dict, model):
    """A state dict, and what the model has under another name of a tensor in it."""

    def which(tensor):
        return tensor.untyped_storage(), tensor.storage_offset(), tensor.dtype, tensor.shape, tensor.stride()

    tensors = {name: t for name, t in model.state_dict().items() if isinstance(t, torch.Tensor)}
    held = {which(tensors[name]): t for name, t in state_dict.items() if name in tensors}
    return {name: held[which(t)] for name, t in tensors.items() if which(t) in held} | state_dict


def require_fit(path, model, state_dict):
    """Raise `ValueError` unless a state dict is one of the model's as it is, with nothing to be cast or broadcast."""
    require_equal(path, form(model.state_dict()), form(state_dict))


def require_equal(path, wanted, found):
    if differing := wanted ^ found:
        names = sorted({name for name, *_ in differing})
        raise ValueError(f"{path} and the model differ in names, dtypes, shapes, strides or ties: {names}")


def form(tensors):
    """All that has to be equal of two state dicts, but for their values."""
    found, first = set(), {}  # `first`: of every storage the first name, and where it starts. Tied names share it.
    for name, t in sorted(tensors.items()):
        if name.endswith("_extra_state"):
            found.add((name,))
        else:
            other, start = first.setdefault(t.untyped_storage() if t.numel() else name, (name, t.storage_offset()))
            found.add((name, t.dtype, t.shape, t.stride(), other, t.storage_offset() - start))
    return found


def require_persistent(model):
    """Raise `ValueError` if a skeleton has buffers that are in no checkpoint: on meta they have no values either."""
    if lost := sorted(dict(model.named_buffers(remove_duplicate=False)).keys() - model.state_dict().keys()):
        raise ValueError(f"{lost} are not persistent: they have values only where the model is built on a device")


def swap_in(model, state_dict):
    """Make the tensors of a state dict those of the model."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        swap(tensor, state_dict[name])
    load_extra_state(model, state_dict)


def swap(tensor, other):
    """Make a tensor of a model what another one is.

    `to_empty` and `load_state_dict(assign=True)` would untie: a tensor that is swapped stays itself to all of its
    names, and to an optimizer.
    """
    if isinstance(tensor, torch.nn.Parameter):
        other = torch.nn.Parameter(other, tensor.requires_grad)
    torch.utils.swap_tensors(tensor, other)


def load_extra_state(model, state_dict):
    """Hand modules the extra state that they have saved, which is no tensor of theirs."""
    extra = {name: value for name, value in state_dict.items() if name.endswith("_extra_state")}
    model.load_state_dict(extra, strict=False)


def cast(found, dtype):
    """The form of a state dict, its floating-point tensors of this dtype; None: as they are."""
    return {
        (*entry[:1], dtype, *entry[2:]) if dtype and entry[1:] and entry[1].is_floating_point else entry
        for entry in found
    }


class Unfilled(TorchFunctionMode):
    """In which nothing fills tensors on meta: they have no values, but to find that out takes longer than a load."""

    FILLS = ("uniform_", "normal_", "fill_", "zero_", "triu_", "tril_")

    def __torch_function__(self, func, types, args=(), kwargs=None):
        filled = args[0] if args else (kwargs or {}).get("tensor")
        fills = func.__name__ in self.FILLS or getattr(func, "__module__", None) == "torch.nn.init"
        if fills and filled.is_meta:
            return filled
        return func(*args, **(kwargs or {}))
