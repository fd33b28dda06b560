"""Loaders of the user's, as rows beside the suite's own."""

from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.strategies import KNOWN, Bounds, Strategy
from bench.strategies.lazy_recipe import LazyRecipe
from model.layouts.layouts import LAYOUTS
from model.user.reference import Reference


class UserRecipe(LazyRecipe):
    """Calls a function of the user's, with the path as a string: that is what most libraries are written for."""

    def __call__(self, build: Any, path: Path | str, device: torch.device, *others: Any, **keywords: Any) -> nn.Module:
        """Raises `TypeError` where the function returns something else than a model."""
        model: Any = super().__call__(build, str(path), device, *others, **keywords)
        if isinstance(model, nn.Module):
            return model
        kind = type(model).__name__
        raise TypeError(f"the loader returned an object of type {kind}, not a torch.nn.Module; return the model")


def required_layout(function: Any) -> str | None:
    """Return the layout that a loader wants, by an attribute of that name. Raises `ValueError` for an unknown one."""
    layout = getattr(function, "layout", None)
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(
            f"has the unknown layout {layout!r}; choose from {', '.join(LAYOUTS)}, or leave out the attribute"
        )
    return layout


def takes_a_load(function: Any) -> bool:
    """Return True if a function can be called as a recipe is: with `build`, `path` and `device`."""
    try:
        signature(function).bind(None, None, None)
    except TypeError:
        return False
    except ValueError:  # Of some that are written in C nothing is known.
        return True
    return True


def user_strategy(text: str, bound: str | None) -> Strategy:
    """Return the row of a loader, by its name, see `Reference`; `bound`: what it takes on the device at most.

    Raises `ValueError`, in a line, if it cannot be one.
    """
    reference = Reference.of(text)
    function = reference.get()
    if not takes_a_load(function):
        raise ValueError(
            f"{reference.display_name} does not take (build, path, device); write a function that takes these three"
        )
    if reference.name in KNOWN:
        raise ValueError(f"{reference.display_name} has the name of a strategy of the suite; rename the function")
    try:
        layout = required_layout(function)
    except ValueError as error:
        raise ValueError(f"{reference.display_name} {error}") from None
    bounds = Bounds(device=bound or "", cpu=bound or "")
    return Strategy(UserRecipe(reference), layout or "torch", bounds, is_users=True, any_layout=layout is None)
