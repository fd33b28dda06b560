"""Names in a state dict: ties, and a digest of names, dtypes, shapes and ties."""

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

# The name, or the end of the name, of what a module saves beside its tensors.
EXTRA_STATE = "_extra_state"


def untied(state_dict: Mapping[str, Any]) -> list[str]:
    """Return the names of a state dict; of several names of one tensor, the first."""
    return list(dict.fromkeys(first_names(state_dict).values()))


def first_names(state_dict: Mapping[str, Any]) -> dict[str, str]:
    """Return every name with the first name of its tensor."""
    first: dict[object, str] = {}
    return {name: first.setdefault(_place(name, tensor), name) for name, tensor in state_dict.items()}


def without(state_dict: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return a state dict without some names."""
    left_out = set(names)
    return {name: value for name, value in state_dict.items() if name not in left_out}


def state_digest(state_dict: Mapping[str, Any]) -> str:
    """Return a SHA-256 of the names, dtypes, shapes and ties of a state dict."""
    firsts = first_names(state_dict)
    described = [
        [name, str(value.dtype), list(value.shape), *{firsts[name]} - {name}] if isinstance(value, Tensor) else [name]
        for name, value in state_dict.items()
    ]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def _place(name: str, tensor: Any) -> object:
    """Return a key that is equal for two names of one tensor, and differs for everything else."""
    if not isinstance(tensor, Tensor):
        return name
    return tensor.untyped_storage(), tensor.dtype, tensor.storage_offset(), tensor.shape, tensor.stride()
