"""Properties of a model that strategies may refuse, read off its state."""

from collections import defaultdict

from torch import Tensor, nn

from bench.strategies.reading.assign import others
from model.state_dict import EXTRA_STATE

# What may keep a strategy from loading a model, and what to change in the model so that nothing does.
OBSTACLES = {
    "views": "give each of them memory of its own (.clone()) and save the checkpoint again",
    "gaps": "give each of them memory of its own (.clone()) and save the checkpoint again",
    "extra_state": "leave out get_extra_state and save the checkpoint again",
    "skeleton": "let the model be built without values of its weights",
    "uninitialised": "give the modules of what its checkpoint lacks a reset_parameters()",
    "scripted": "load the model before torch.jit.script compiles it",
}


def properties_of(model: nn.Module) -> dict[str, list[str]]:
    """Return the properties of `PROPERTIES` that a model's state shows, with the names that have them.

    A meta skeleton will do. They come with the names of tensors, `extra_state` with its keys; on meta
    `nonpersistent` has attributes that are tensors, too.
    """
    state_dict = model.state_dict()
    tensors = {name: value for name, value in state_dict.items() if isinstance(value, Tensor) and value.numel()}
    sharing: dict[object, list[str]] = defaultdict(list)
    for name, tensor in tensors.items():
        sharing[tensor.untyped_storage()].append(name)
    transient = dict(model.named_buffers(remove_duplicate=False)).keys() - state_dict.keys()
    beside: dict[str, Tensor] = others(model)
    views, gaps = [], []
    for names in sharing.values():
        distinct = {_place(tensors[name]): tensors[name].nbytes for name in names}
        views += names if len(distinct) > 1 else []
        gaps += names if sum(distinct.values()) < tensors[names[0]].untyped_storage().nbytes() else []
    found = {
        "nonpersistent": [name for name, tensor in beside.items() if name in transient or tensor.is_meta],
        "views": views,
        "gaps": gaps,
        "extra_state": [name for name in state_dict if name.endswith(EXTRA_STATE)],
    }
    return {name: names for name, names in found.items() if names}


def _place(tensor: Tensor) -> tuple[object, ...]:
    """Return a key that is equal for two names of one tensor, among those in one memory."""
    return tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype
