"""Casts of floating-point weights, that is parameters and persistent buffers, to another dtype."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

# Names in a state dict with another dtype than the model is built with, and that dtype.
Dtypes = tuple[tuple[str, torch.dtype], ...]


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype in options and tables: `bfloat16`."""
    return str(dtype).removeprefix("torch.")


def floating(state_dict: Mapping[str, Any]) -> dict[str, torch.dtype]:
    """Return the dtypes of the floating-point tensors of a state dict, by their names."""
    tensors = ((name, value) for name, value in state_dict.items() if isinstance(value, Tensor))
    return {name: tensor.dtype for name, tensor in tensors if tensor.dtype.is_floating_point}


def cast_dtypes(state_dict: Mapping[str, Any], dtype: torch.dtype | None) -> dict[str, torch.dtype]:
    """Return the dtypes of floating-point tensors after a cast to `dtype`; None: no cast, and no dtypes."""
    return dict.fromkeys(floating(state_dict), dtype) if dtype else {}


def retyped(state_dict: Mapping[str, Any], dtypes: Mapping[str, torch.dtype]) -> dict[str, Any]:
    """Return a state dict in which tensors of these names have other dtypes, on meta; tensors keep sharing memory.

    A storage has one dtype: all of its tensors get the dtype of the one that is named.
    """
    of_storage = _of_storages({name: value for name, value in state_dict.items() if isinstance(value, Tensor)}, dtypes)
    wholes: dict[torch.UntypedStorage, Tensor] = {}

    def one(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage not in of_storage:
            return tensor
        if storage not in wholes:
            count = storage.nbytes() // tensor.element_size()
            wholes[storage] = torch.empty(count, dtype=of_storage[storage], device="meta")
        return wholes[storage].as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

    return {name: one(value) if isinstance(value, Tensor) else value for name, value in state_dict.items()}


def retype(model: nn.Module, dtypes: Mapping[str, torch.dtype]) -> None:
    """Convert tensors of a model, by their names in its state dict, to these dtypes; tensors keep sharing memory."""
    named = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    tensors = {name: tensor for name, tensor in named if name in dtypes}
    of_storage = _of_storages(tensors, dtypes)
    sharing: dict[torch.UntypedStorage, dict[int, Tensor]] = {storage: {} for storage in of_storage}
    for tensor in tensors.values():
        if tensor.untyped_storage() in sharing:
            sharing[tensor.untyped_storage()][id(tensor)] = tensor
    groups = [(dtype, list(sharing[storage].values())) for storage, dtype in of_storage.items()]
    # Nothing else may hold the memory of a storage when the next one is converted.
    del sharing, of_storage, named, tensors
    for dtype, group in groups:
        storage = group[0].untyped_storage()
        whole = torch.empty(0, dtype=group[0].dtype, device=storage.device).set_(storage).to(dtype)
        for tensor in group:
            tensor.data = whole.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
        del storage, whole


def cast(model: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """Cast the floating-point weights of a model in place, and return it; other tensors keep their dtypes.

    None: the model stays as it is.
    """
    retype(model, cast_dtypes(model.state_dict(), dtype))
    return model


def _of_storages(
    tensors: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype]
) -> dict[torch.UntypedStorage, torch.dtype]:
    """Return the new dtype of each storage that gets another one."""
    asked = {name: dtype for name, dtype in dtypes.items() if name in tensors and dtype != tensors[name].dtype}
    return {tensors[name].untyped_storage(): dtype for name, dtype in asked.items()}
