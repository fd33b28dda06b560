"""Casts: floating-point weights, the parameters and persistent buffers of a model, in another dtype than before."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.architecture import DTYPES
from model.examine.pickle_objects import SavedTensor
from model.user.renaming import listed

# Of every name in a state dict that has another dtype than the model is built with: which.
Dtypes = tuple[tuple[str, torch.dtype], ...]


def name_of(dtype: torch.dtype) -> str:
    """What options and tables call a dtype: `bfloat16`."""
    return str(dtype).removeprefix("torch.")


def floating(state_dict: Mapping[str, Any]) -> dict[str, torch.dtype]:
    """The dtypes of the floating-point tensors of a state dict, by their names."""
    tensors = ((name, value) for name, value in state_dict.items() if isinstance(value, Tensor))
    return {name: tensor.dtype for name, tensor in tensors if tensor.dtype.is_floating_point}


def cast_dtypes(state_dict: Mapping[str, Any], dtype: torch.dtype | None) -> dict[str, torch.dtype]:
    """What the floating-point tensors of a state dict become by a cast; None: nothing."""
    return dict.fromkeys(floating(state_dict), dtype) if dtype else {}


def retyped(state_dict: Mapping[str, Any], dtypes: Mapping[str, torch.dtype]) -> dict[str, Any]:
    """A state dict whose tensors of these names have other dtypes, on meta; what shared memory shares it.

    A dtype that one name of a storage has is that of the storage: all of its tensors get it.
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
    """Convert tensors of a model to these dtypes, by their names in its state dict, and keep what shares memory."""
    named = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    tensors = {name: tensor for name, tensor in named if name in dtypes}
    of_storage = _of_storages(tensors, dtypes)
    sharing: dict[torch.UntypedStorage, dict[int, Tensor]] = {storage: {} for storage in of_storage}
    for tensor in tensors.values():
        if tensor.untyped_storage() in sharing:
            sharing[tensor.untyped_storage()][id(tensor)] = tensor
    groups = [(dtype, list(sharing[storage].values())) for storage, dtype in of_storage.items()]
    # Nothing else is to hold the memory of one when the next is converted.
    del sharing, of_storage, named, tensors
    for dtype, group in groups:
        storage = group[0].untyped_storage()
        whole = torch.empty(0, dtype=group[0].dtype, device=storage.device).set_(storage).to(dtype)
        for tensor in group:
            tensor.data = whole.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
        del storage, whole


def cast(model: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """The same model, its floating-point weights in a dtype; what no state dict holds keeps its own. None: as it is."""
    retype(model, cast_dtypes(model.state_dict(), dtype))
    return model


def as_saved(saved: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, torch.dtype]:
    """The dtypes of floating-point tensors in a checkpoint, by name, where the model is built with another such one."""
    built = floating(expected)
    found = {name: getattr(value, "dtype", None) for name, value in saved.items() if name in built}
    return {name: dtype for name, dtype in found.items() if dtype and dtype.is_floating_point and dtype != built[name]}


def other_dtypes(
    path: Path,
    saved: Mapping[str, Any],
    built: Mapping[str, Any],
    to: str | None,
    names: Collection[str] | None = None,
) -> Dtypes:
    """The names of a state dict that is saved in other dtypes than it is built with, and those dtypes.

    `names` are those of the model, where what is saved has others: there is one dtype for all of them then. Raises
    `ValueError`, in a line, where dtypes differ and no cast, `to`, is asked for.
    """
    found, wanted = floating(saved), floating(built)
    differing = {name: dtype for name, dtype in found.items() if dtype != wanted[name]}
    if not differing:
        return ()
    if to is None:
        have, has = set(differing.values()), {wanted[name] for name in differing}
        offered = [name_of(dtype) for dtype in (*_sorted(has), *_sorted(have)) if dtype in DTYPES.values()]
        first, *others = offered or DTYPES
        more = f" (or {', '.join(others)})" if others else ""
        where = "" if len(differing) == len(found) else f" in {listed(list(differing))}"
        raise ValueError(
            f"--checkpoint: {path} holds {_listed(have)}{where}, and the model is built in {_listed(has)}: add --cast "
            f"{first}{more}, or build it in {_listed(have)}"
        )
    if names is None:
        return tuple(differing.items())
    if len(set(found.values())) > 1:
        raise ValueError(
            f"--checkpoint: {path} holds {_listed(found.values())}, in tensors that from_pretrained makes others of: "
            f"save the state dict of the model itself, to be cast"
        )
    return tuple((name, dtype) for name in names for dtype in set(found.values()))


def require_floating(path: Path, saved: Iterable[tuple[str, object]], expected: Mapping[str, Any]) -> None:
    """Raise `ValueError`, in a line, for floating-point numbers where the other has none: no cast converts those."""
    for name, value in saved:
        wanted = expected.get(name)
        if isinstance(value, SavedTensor) and isinstance(wanted, Tensor):
            kinds = value.dtype, wanted.dtype
            if len({dtype.is_floating_point for dtype in kinds}) > 1:
                found, asked = map(name_of, kinds)
                raise ValueError(
                    f"--checkpoint: {path}: {name} is {found}, where the model has {asked}: --cast converts "
                    f"floating-point numbers only, to others"
                )


def require_convertible(dtypes: Iterable[torch.dtype], to: str) -> None:
    """Raise `ValueError`, in a line, for a dtype that torch does not convert here, as one of float4."""
    for dtype in dict.fromkeys(dtypes):
        try:
            torch.empty(1, dtype=dtype).to(DTYPES[to])
        except (RuntimeError, NotImplementedError):
            raise ValueError(
                f"--cast: torch {torch.__version__} converts no {name_of(dtype)}, which there is, to {to}"
            ) from None


def _listed(dtypes: Iterable[torch.dtype]) -> str:
    return " and ".join(map(name_of, _sorted(dtypes)))


def _sorted(dtypes: Iterable[torch.dtype]) -> list[torch.dtype]:
    return sorted(set(dtypes), key=str)


def _of_storages(
    tensors: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype]
) -> dict[torch.UntypedStorage, torch.dtype]:
    """The dtype that each storage is to have, of those that are to have another one."""
    asked = {name: dtype for name, dtype in dtypes.items() if name in tensors and dtype != tensors[name].dtype}
    return {tensors[name].untyped_storage(): dtype for name, dtype in asked.items()}
