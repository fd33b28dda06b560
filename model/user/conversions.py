"""Conversions by the model's own code: hooks of `load_state_dict`, and `from_pretrained` of transformers."""

import re
import sys
from collections.abc import Callable, Collection, Mapping, Set
from contextlib import redirect_stderr
from io import StringIO
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from model.examine.pickle_objects import SavedStorage, SavedTensor
from model.state_dict import first_names

# Names that `from_pretrained` ignores for any model with such a buffer: checkpoints of earlier versions hold them.
EARLIER_BUFFERS = {"rotary_emb.inv_freq": r"rotary_emb\.inv_freq", "position_ids": r"(^|\.)position_ids$"}


def completed(state_dict: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """Add the other names of tied tensors to a state dict, and return it."""
    firsts = first_names(model.state_dict())
    held = {firsts[name]: value for name, value in state_dict.items() if name in firsts}
    for name, first in firsts.items():
        if name not in state_dict and first in held:
            state_dict[name] = held[first]
    return state_dict


def taken_by(
    model: nn.Module, state_dict: Callable[[], dict[str, Any]], missing: Collection[str] = ()
) -> dict[str, Any]:
    """Return descriptions of a state dict after the hooks of the model's own `load_state_dict`; {} where it is refused.

    The model, which may be on meta, gets the tensors themselves: only hooks read their values. Neither has names that
    are `missing`.
    """
    original = nn.Module.load_state_dict

    def load_state_dict(self: nn.Module, given: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        del strict  # A model's own code may ask for less.
        taken = original(self, given, strict=not missing, assign=assign)
        _require_all_but(missing, taken)
        return taken

    try:
        with patch.object(nn.Module, "load_state_dict", load_state_dict):
            model.load_state_dict(completed(state_dict(), model), assign=True)
    except Exception:  # noqa: BLE001 - whatever the model's own code raises
        return {}
    taken = {name: value for name, value in model.state_dict().items() if name not in set(missing)}
    if any(isinstance(value, Tensor) and (value.is_meta or value.layout != torch.strided) for value in taken.values()):
        return {}  # A hook has left a tensor as the model was made, or a saved tensor is not dense.
    return {name: _description(name, value) if isinstance(value, Tensor) else value for name, value in taken.items()}


def _description(name: str, tensor: Tensor) -> SavedTensor:
    storage = tensor.untyped_storage()
    kept = SavedStorage(str(storage.data_ptr() or name), tensor.dtype, storage.nbytes())
    return SavedTensor(kept, tensor.dtype, int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride())


def written_by(model: nn.Module) -> dict[str, Tensor] | None:
    """Return what `save_pretrained` writes of a model of transformers on meta; None if that is its state dict.

    It has names of earlier versions, and a tensor for each expert.
    """
    if (loading := _loading_of(model)) is None:
        return None
    own = model.state_dict()
    try:
        written: dict[str, Tensor] = loading.revert_weight_conversion(model, own)
    except Exception:  # noqa: BLE001 - a model for which the library has no way back
        return None
    if written.keys() == own.keys():
        return None
    # A part of a tensor of the model is saved as a tensor of its own.
    whole = {_place(one) for one in own.values()}
    return {
        name: one if _place(one) in whole else torch.empty(one.shape, dtype=one.dtype, device="meta")
        for name, one in written.items()
    }


def _place(tensor: Tensor) -> object:
    return tensor.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride()


def earlier_names(model: nn.Module) -> Callable[[str], str] | None:
    """Return the function by which `from_pretrained` of transformers renames earlier names; None for other models."""
    if (loading := _loading_of(model)) is None:
        return None
    mapping: Any = sys.modules["transformers.conversion_mapping"]
    try:
        rules = mapping.get_model_conversion_mapping(model)
    except Exception:  # noqa: BLE001 - a model of which the library knows nothing
        rules = []
    rules = [rule for rule in rules if isinstance(rule, loading.WeightRenaming)]
    return lambda name: str(loading.rename_source_key(name, rules, [])[0])


def _loading_of(model: nn.Module) -> Any:
    """Return the module of transformers that changes names, if the model is of transformers from version 5 on."""
    models, loading = (sys.modules.get(f"transformers.{name}") for name in ("modeling_utils", "core_model_loading"))
    if models is None or loading is None or not isinstance(model, models.PreTrainedModel):
        return None
    return loading


def ignored_by(model: nn.Module) -> re.Pattern[str] | None:
    """Return a pattern of the names that a model of transformers ignores in a checkpoint; None for other models."""
    if _loading_of(model) is None:
        return None
    buffers = [name for name, _ in model.named_buffers()]
    earlier = [rule for end, rule in EARLIER_BUFFERS.items() if any(name.endswith(end) for name in buffers)]
    patterns = [*(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()), *earlier]
    return re.compile("|".join(f"({pattern})" for pattern in patterns)) if patterns else None


def load(model: Any, state_dict: dict[str, Any], *, converted: bool, missing: Collection[str] = ()) -> None:
    """Copy a state dict into a model; `converted`: the model's own `from_pretrained` has to convert it first.

    The model keeps its tensors of the names that are `missing`. Raises `ValueError` if any other name is not taken, or
    changes its dtype.
    """
    if converted:
        state_dict = _from_pretrained(model, state_dict, set(missing))
    if not missing:
        model.load_state_dict(completed(state_dict, model))
        return
    _require_all_but(missing, model.load_state_dict(completed(state_dict, model), strict=False))


def _require_all_but(missing: Collection[str], taken: Any) -> None:
    """Raise `ValueError` unless a state dict has the names of the model, `missing` ones excepted."""
    if differing := [*taken.unexpected_keys, *sorted(set(taken.missing_keys) - set(missing))]:
        raise ValueError(f"is not taken by load_state_dict of the model: {', '.join(differing[:3])}")


def _from_pretrained(model: Any, state_dict: Mapping[str, Any], missing: Set[str]) -> dict[str, Any]:
    refused = "is not taken by from_pretrained of the model"
    try:
        with redirect_stderr(StringIO()):  # Its progress bar.
            loaded, info = type(model).from_pretrained(
                None, config=model.config, state_dict=dict(state_dict), dtype=model.dtype, output_loading_info=True
            )
    except Exception as error:  # noqa: BLE001 - whatever the library raises
        raise ValueError(f"{refused}: {error}") from None
    for kind, found in info.items():
        if names := set(found) - (missing if kind == "missing_keys" else set()):
            raise ValueError(f"{refused}: {kind.replace('_', ' ')}: {', '.join(sorted(map(str, names))[:3])}")
    made: dict[str, Any] = {name: value for name, value in loaded.state_dict().items() if name not in missing}
    for name, value in model.state_dict().items():
        if name in made and made[name].dtype != value.dtype:
            raise ValueError(f"{refused}: it makes {name} {made[name].dtype}, where the model has {value.dtype}")
    return made
