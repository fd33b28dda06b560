"""Dtypes in a checkpoint that differ from the model's. They are refused unless a cast converts them."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.architecture import DTYPES
from model.casting import Dtypes, dtype_name, floating
from model.examine.pickle_objects import SavedTensor
from model.user.renaming import listed


def as_saved(saved: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, torch.dtype]:
    """Return the dtypes of floating-point tensors in a checkpoint, by name, where they differ from the model's."""
    built = floating(expected)
    found = {name: getattr(value, "dtype", None) for name, value in saved.items() if name in built}
    return {name: dtype for name, dtype in found.items() if dtype and dtype.is_floating_point and dtype != built[name]}


def other_dtypes(
    path: Path, saved: Mapping[str, Any], built: Mapping[str, Any], to: str | None, names: Collection[str] | None = None
) -> Dtypes:
    """Return the names of a state dict that are saved in other dtypes than they are built with, and those dtypes.

    `names` are the model's names if the saved ones differ: then all of them have one dtype. Raises `ValueError`, in a
    line, if dtypes differ and `to`, the dtype of a cast, is None.
    """
    found, wanted = floating(saved), floating(built)
    differing = {name: dtype for name, dtype in found.items() if dtype != wanted[name]}
    if not differing:
        return ()
    if to is None:
        have, has = set(differing.values()), {wanted[name] for name in differing}
        offered = [dtype_name(dtype) for dtype in (*_sorted(has), *_sorted(have)) if dtype in DTYPES.values()]
        first, *others = offered or DTYPES
        more = f" (or {', '.join(others)})" if others else ""
        where = "" if len(differing) == len(found) else f" in {listed(list(differing))}"
        raise ValueError(
            f"--checkpoint: {path} holds {_listed(have)}{where}, and the model is built in {_listed(has)}; add --cast "
            f"{first}{more}, or build it in {_listed(have)}"
        )
    if names is None:
        return tuple(differing.items())
    if len(set(found.values())) > 1:
        raise ValueError(
            f"--checkpoint: {path} holds {_listed(found.values())} in tensors that from_pretrained converts, which "
            f"--cast cannot; save the state dict of the model itself"
        )
    return tuple((name, dtype) for name in names for dtype in set(found.values()))


def require_floating(path: Path, saved: Iterable[tuple[str, object]], expected: Mapping[str, Any]) -> None:
    """Raise `ValueError`, in a line, if only one of a saved tensor and the model's is floating-point."""
    for name, value in saved:
        wanted = expected.get(name)
        if isinstance(value, SavedTensor) and isinstance(wanted, Tensor):
            kinds = value.dtype, wanted.dtype
            if len({dtype.is_floating_point for dtype in kinds}) > 1:
                found, asked = map(dtype_name, kinds)
                raise ValueError(
                    f"--checkpoint: {path}: {name} is {found}, and {asked} in the model; save it as {asked}, because "
                    f"--cast converts floating-point dtypes only"
                )


def require_convertible(dtypes: Iterable[torch.dtype], to: str) -> None:
    """Raise `ValueError`, in a line, for a dtype that this torch does not convert, such as float4."""
    for dtype in dict.fromkeys(dtypes):
        try:
            torch.empty(1, dtype=dtype).to(DTYPES[to])
        except (RuntimeError, NotImplementedError):
            raise ValueError(
                f"--cast: torch {torch.__version__} cannot convert {dtype_name(dtype)} to {to}; leave out --cast"
            ) from None


def _listed(dtypes: Iterable[torch.dtype]) -> str:
    return " and ".join(map(dtype_name, _sorted(dtypes)))


def _sorted(dtypes: Iterable[torch.dtype]) -> list[torch.dtype]:
    return sorted(set(dtypes), key=str)
