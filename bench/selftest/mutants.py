"""Loaders that are wrong on purpose, each in a way in which real ones have been: the suite has to catch them all."""

import json
import mmap
from pathlib import Path

import torch
from torch import nn

from model.layouts.layouts import read_safetensors_sharded


def _read(path, device):
    return torch.load(path, map_location=device, weights_only=True)


def _emptied(build, device):
    """Build a model on meta, and give every name memory of its own without values."""
    with torch.device("meta"):
        model = build()
    return model.to_empty(device=device)


def parameters_only(build, path, device):
    """Copies no buffers, as in the notebook that this suite grew from."""
    model, state_dict = _emptied(build, device), _read(path, device)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(state_dict[name])
    return model


def not_strict(build, path, device):
    model = build().to(device)
    model.load_state_dict(_read(path, device), strict=False)
    return model


def plain_load_state_dict(build, path, device):
    """Loads as most people write it: it casts, and lets the last of several tied names win."""
    model = build().to(device)
    model.load_state_dict(_read(path, device))
    return model


def broadcasting(build, path, device):
    model, state_dict = build().to(device), _read(path, device)
    for name, tensor in model.state_dict().items():
        tensor.copy_(state_dict[name])
    return model


def in_float32(build, path, device):
    model = plain_load_state_dict(build, path, device)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.float()
    return model


def through_bfloat16(build, path, device):
    model = plain_load_state_dict(build, path, device)
    for tensor in model.parameters():
        tensor.data.copy_(tensor.data.bfloat16())
    return model


def without_special_values(build, path, device):
    model = plain_load_state_dict(build, path, device)
    for tensor in model.parameters():
        if tensor.dtype in (torch.float32, torch.float64, torch.bfloat16):
            tensor.data.nan_to_num_()
    return model


def assigned(build, path, device):
    """Meta and `assign=True`: ties are broken, and what is in no state dict stays on meta."""
    with torch.device("meta"):
        model = build()
    model.load_state_dict(_read(path, device), assign=True)
    return model


def with_stale_lists(build, path, device):
    """Recurrent layers compute with what they had before: their lists of weights are not renewed."""
    model = build().to(device)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.RNNBase)]
    before = [[weight.clone() for weight in layer._flat_weights] for layer in layers]
    model.load_state_dict(_read(path, device))
    for layer, weights in zip(layers, before, strict=True):
        layer._flat_weights = weights
    return model


def emptied(build, path, device):
    """`to_empty`: tied names get memory of their own, non-persistent buffers no value at all."""
    model = _emptied(build, device)
    model.load_state_dict(_read(path, device))
    return model


def first_of_tied(build, path, device):
    """Skips the names of what it has loaded already, though `to_empty` has untied them."""
    model, state_dict = _emptied(build, device), _read(path, device)
    done = set()
    for name, tensor in model.state_dict().items():
        if state_dict[name].untyped_storage() not in done:
            done.add(state_dict[name].untyped_storage())
            tensor.copy_(state_dict[name])
    return model


def packed(build, path, device):
    """Makes tensors contiguous, without their neighbours in memory, as some formats do."""
    model = build()
    state_dict = _read(path, device)
    made = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        made[name] = torch.empty(tensor.shape, dtype=tensor.dtype, device=device).copy_(tensor.detach())
        if name in state_dict:
            made[name].copy_(state_dict[name])
        tensor.data = made[name]
    return model


def under_other_names(build, path, device):
    """Exchanges tensors of the same shape and dtype."""
    model, state_dict = build().to(device), _read(path, device)
    destination = model.state_dict()
    for name, other in zip(destination, reversed(destination), strict=True):
        alike = destination[name].shape == destination[other].shape
        alike = alike and destination[name].dtype == destination[other].dtype
        destination[name].copy_(state_dict[other if alike else name])
    return model


def under_printable_names(build, path, device):
    """Finds no tensor whose name it would have to escape."""
    model, state_dict = build().to(device), _read(path, device)
    for name, tensor in model.state_dict().items():
        if name.isascii() and name.isprintable():
            tensor.copy_(state_dict[name])
    return model


def thawed(build, path, device):
    model = plain_load_state_dict(build, path, device)
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return model


def with_gradients(build, path, device):
    model = plain_load_state_dict(build, path, device)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return model


def evaluating(build, path, device):
    return plain_load_state_dict(build, path, device).eval()


def with_persistent_buffers(build, path, device):
    model = plain_load_state_dict(build, path, device)
    for module in model.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            module.register_buffer(name, buffer, persistent=True)
    return model


def with_buffers_for_parameters(build, path, device):
    model = plain_load_state_dict(build, path, device)
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if not parameter.requires_grad:
                delattr(module, name)
                module.register_buffer(name, parameter.data)
    return model


def in_another_order(build, path, device):
    model = plain_load_state_dict(build, path, device)
    for module in model.modules():
        for name, parameter in reversed(list(module.named_parameters(recurse=False))):
            delattr(module, name)
            module.register_parameter(name, parameter)
    return model


def without_extra_state(build, path, device):
    model, state_dict = build().to(device), _read(path, device)
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, torch.Tensor) and tensor.shape == getattr(state_dict[name], "shape", None):
            tensor.copy_(state_dict[name])
    return model


def the_first_thousand(build, path, device):
    model, state_dict = build().to(device), _read(path, device)
    for name, tensor in list(model.state_dict().items())[:1000]:
        tensor.copy_(state_dict[name])
    return model


def replaced(build, path, device):
    """Right in every tensor, but an optimizer that was made before has others."""
    model = build().to(device)
    made = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter not in made:
                made[parameter] = nn.Parameter(parameter.detach(), parameter.requires_grad)
            setattr(module, name, made[parameter])
    model.load_state_dict(_read(path, device))
    return model


_BORROWED: dict[Path, dict[str, torch.Tensor]] = {}


def borrowed(build, path, device):
    """Hands out the same memory for every load of a file, as a staging buffer that is reused."""
    model = build().to(device)
    if path not in _BORROWED:
        _BORROWED.clear()
        _BORROWED[path] = _read(path, device)
    for name, parameter in model.named_parameters():
        parameter.data = _BORROWED[path][name]
    return model


def written_through(build, path, device):
    """Maps the file so that who trains the model writes to the checkpoint."""
    model = build().to(device)
    with torch.serialization.set_default_mmap_options(mmap.MAP_SHARED):
        state_dict = torch.load(path, map_location=device, weights_only=True, mmap=True)
    for name, parameter in model.named_parameters():
        parameter.data = state_dict[name]
    return model


def computing_otherwise(build, path, device):
    model = plain_load_state_dict(build, path, device)
    model.register_forward_hook(lambda _module, _args, output: output * 2 + 1)
    return model


def in_one_buffer(build, path, device):
    """Hands out views of one buffer, as a loader that reads a file as a whole."""
    model = plain_load_state_dict(build, path, device)
    plain = [one for one in model.parameters() if one.dtype == torch.float32 and one.is_contiguous()]
    buffer = torch.cat([one.detach().flatten() for one in plain]) if plain else None
    start = 0
    for parameter in plain:
        values = buffer[start : start + parameter.numel()]
        parameter.data = values.view(parameter.shape)
        start += parameter.numel()
    return model


def without_dimensions(build, path, device):
    model = plain_load_state_dict(build, path, device)
    for parameter in model.parameters():
        parameter.data = parameter.data.reshape(parameter.shape or (1,))
    return model


def untied_if_frozen(build, path, device):
    """Right in all but this: even the strides are kept."""
    model = plain_load_state_dict(build, path, device)
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if not parameter.requires_grad:
                copied = torch.empty_strided(parameter.shape, parameter.stride(), dtype=parameter.dtype, device=device)
                setattr(module, name, nn.Parameter(copied.copy_(parameter), requires_grad=False))
    return model


def all_but_the_last_file(build, path, device):
    """Skips the last file."""
    model = build().to(device)
    for file in sorted(set(json.loads(path.read_bytes())["weight_map"].values()))[:-1]:
        model.load_state_dict(torch.load(path.with_name(file), map_location=device, weights_only=True), strict=False)
    return model


def zeros_for_other_names(build, path, device):
    """Loads zeros for tensors that the file has under another of their names."""
    model = build().to(device)
    state_dict = dict(read_safetensors_sharded(path))
    zeros = {name: torch.zeros_like(t) for name, t in model.state_dict().items() if name not in state_dict}
    model.load_state_dict(state_dict | zeros)
    return model
