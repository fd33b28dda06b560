"""A loader of the user's, as a row beside the suite's own."""

from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.strategies.lazy_recipe import LazyRecipe
from model.layouts.layouts import LAYOUTS


class UserRecipe(LazyRecipe):
    """Calls a function of the user's, with the path as a string: that is what most libraries are written for."""

    def __call__(self, build: Any, path: Path | str, device: torch.device, *others: Any, **keywords: Any) -> nn.Module:
        return super().__call__(build, str(path), device, *others, **keywords)


def required_layout(function: Any) -> str | None:
    """The layout that a loader wants, by an attribute of that name. Raises `ValueError` for one that there is not."""
    layout = getattr(function, "layout", None)
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"has the layout {layout!r}; choose one of {', '.join(LAYOUTS)}, or give it none")
    return layout


def takes_a_load(function: Any) -> bool:
    """Whether a function can be called as a recipe is: with `build`, `path` and `device`."""
    try:
        signature(function).bind(None, None, None)
    except TypeError:
        return False
    except ValueError:  # Of some that are written in C nothing is known.
        return True
    return True
