"""The weights of a model: which those are, and how other tensors become them, on a device or in another dtype."""

import weakref
from contextlib import contextmanager

import torch


def weights(model):
    """The parameters and persistent buffers of a model, each by the first of its names in the state dict."""
    named = dict((*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)))
    first = {}
    for name in model.state_dict():
        if name in named:
            first.setdefault(id(named[name]), name)
    return {name: named[name] for name in first.values()}


def others(model):
    """The tensors of a model that no checkpoint has, by name: buffers, and attributes, also in a list or a dict.

    And parameters, where a module's own code leaves them out of its state dict.

    What a module that has extra state keeps beside its weights is for that to bring back.
    """
    found = dict((*model.named_buffers(remove_duplicate=False), *model.named_parameters(remove_duplicate=False)))
    for path, module in model.named_modules():
        if type(module).set_extra_state is torch.nn.Module.set_extra_state:
            for name in vars(module).keys() - {"_parameters", "_buffers", "_modules"}:
                value = vars(module)[name]
                value = list(value.values()) if isinstance(value, dict) else value
                values = value if isinstance(value, list | tuple) else [value]
                found |= {f"{path}.{name}".lstrip("."): one for one in values if isinstance(one, torch.Tensor)}
    own = {id(one) for one in weights(model).values()}
    return {name: found[name] for name in sorted(found) if id(found[name]) not in own}


def build_on(build, device, dtype):
    """Build a model on the host, cast its weights one by one, and move it to the device."""
    model = build()
    if dtype:
        assign(model, ((name, one.detach().to(kind(one, dtype))) for name, one in weights(model).items()))
    return model.to(device)


def kind(tensor, dtype):
    """The dtype that a tensor ends in: floating-point numbers are cast, if to any, and others are not."""
    return dtype if dtype and tensor.is_floating_point() else tensor.dtype


def empty(tensor, device, dtype=None):
    """Memory on the device for a weight that is on meta, uninitialised."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=kind(tensor, dtype), device=device)


def cast(state_dict, dtype, device):
    """A state dict whose floating-point tensors have a dtype, on the device; what shares memory shares it there too.

    Raises `ValueError` for tensors of several dtypes in one memory.
    """
    found, moved = {}, {}
    for name, tensor in state_dict.items():
        if name.endswith("_extra_state"):
            found[name] = tensor
            continue
        storage, wanted = tensor.untyped_storage(), kind(tensor, dtype)
        if storage not in moved:
            size = storage.nbytes() // tensor.element_size()
            whole = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(storage, 0, (size,), (1,))
            moved[storage] = tensor.dtype, whole.to(wanted).to(device)
        saved, whole = moved[storage]
        if saved != tensor.dtype:
            raise ValueError(f"{name} shares memory with a tensor of another dtype: neither can be cast")
        found[name] = whole.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
    return found


def allocate(model, device, dtype=None, missing=()):
    """Give the weights of a skeleton memory on the device, uninitialised."""
    # One module after the other, as `to_empty` does it: all parameters before all buffers would leave more gaps in a
    # GPU's memory.
    assign(model, ((name, empty(one, device, dtype)) for name, one in weights(model).items() if name not in missing))


def swap_in(model, state_dict, device, missing=()):
    """Make the tensors of a state dict the weights of a skeleton, and move what else it has to the device."""
    assign(model, ((name, state_dict[name]) for name in weights(model) if name not in missing))
    load_extra_state(model, state_dict)
    move_others(model, device)


def move_others(model, device):
    """Move the buffers that no checkpoint has to the device; attributes stay where they are, as `model.to` has it."""
    own = {id(one) for one in weights(model).values()}
    buffers = {name: one for name, one in model.named_buffers() if id(one) not in own}
    for name, moved in cast(buffers, None, device).items():
        if moved.device != buffers[name].device:
            swap(buffers[name], moved)


def assign(model, tensors):
    """Make tensors, which come with names, the weights of a model.

    `to_empty` and `load_state_dict(assign=True)` would untie: a tensor that is swapped stays itself to all of its
    names, and to an optimizer. One that is held by a weak reference cannot be swapped: modules are given another.
    """
    own = weights(model)
    with swappable(model):
        for name, other in tensors:
            try:
                swap(own[name], other)
            except RuntimeError:
                replace(model, own[name], other)


def swap(tensor, other):
    """Make a tensor what another one is."""
    torch.utils.swap_tensors(tensor, as_weight(other, tensor))


def replace(model, tensor, other):
    """Put another tensor into the place of one, in every module that has it."""
    other = as_weight(other, tensor)
    for module in model.modules():
        for name, held in (*module._parameters.items(), *module._buffers.items()):  # noqa: SLF001 - with all names
            if held is tensor:
                setattr(module, name, other)


def as_weight(tensor, like):
    """A tensor as a parameter, where another one is a parameter."""
    return torch.nn.Parameter(tensor, like.requires_grad) if isinstance(like, torch.nn.Parameter) else tensor


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


def load_extra_state(model, state_dict):
    """Hand modules the extra state that they have saved, which is no tensor of theirs."""
    extra = {name: value for name, value in state_dict.items() if name.endswith("_extra_state")}
    model.load_state_dict(extra, strict=False)
