"""Whether a state dict is one of a model, and how its tensors become those of the model."""

import weakref
from contextlib import contextmanager

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
    for name, t in taken_apart(tensors):
        if name.endswith("_extra_state"):
            found.add((name,))
        elif is_made_of_others(t):
            found.add((name, t.dtype, t.shape, type(t)))
        else:
            other, start = first.setdefault(t.untyped_storage() if t.numel() else name, (name, t.storage_offset()))
            found.add((name, t.dtype, t.shape, t.stride(), other, t.storage_offset() - start))
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


def require_persistent(model):
    """Raise `ValueError` if a skeleton has tensors that are in no checkpoint: on meta they have no values either.

    Or if it is compiled: TorchScript holds its tensors by itself, and they cannot be swapped.
    """
    if compiled := compiled_modules(model):
        raise ValueError(f"{compiled[0]} is compiled by torch.jit.script: its tensors cannot be replaced")
    lost = dict(model.named_buffers(remove_duplicate=False)).keys() - model.state_dict().keys()
    if lost := sorted(lost | attributes_on_meta(model)):
        raise ValueError(f"{lost} are not persistent: they have values only where the model is built on a device")


def compiled_modules(model):
    """The names of what TorchScript has compiled in a model."""
    return [name or "the model" for name, one in model.named_modules() if isinstance(one, torch.jit.ScriptModule)]


def attributes_on_meta(model):
    """The names of tensors on meta that are no parameters and no buffers, but attributes, or in a list or dict of one.

    What is a parameter too, as all in the lists of an LSTM are, will be swapped; what a module that has extra state
    keeps beside its tensors is for that to bring back.
    """
    own, found = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}, set()
    for path, module in model.named_modules():
        if type(module).set_extra_state is not torch.nn.Module.set_extra_state:
            continue
        for name, value in vars(module).items():
            if name not in {"_parameters", "_buffers", "_modules"}:
                inner = (
                    value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
                )
                if any(isinstance(t, torch.Tensor) and t.is_meta and id(t) not in own for t in inner):
                    found.add(f"{path}.{name}".lstrip("."))
    return found


def swap_in(model, state_dict):
    """Make the tensors of a state dict those of the model."""
    with swappable(model):
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            swap(tensor, state_dict[name])
    load_extra_state(model, state_dict)


@contextmanager
def swappable(model):
    """In which the weights of recurrent layers can be swapped: those keep weak references, which PyTorch refuses."""
    layers = [module for module in model.modules() if isinstance(module, torch.nn.RNNBase)]
    for layer in layers:
        layer._flat_weight_refs = []  # noqa: SLF001 - as the layer's own `_apply` does
    yield
    for layer in layers:
        weights = layer._flat_weights  # noqa: SLF001
        layer._flat_weight_refs = [None if one is None else weakref.ref(one) for one in weights]  # noqa: SLF001


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
