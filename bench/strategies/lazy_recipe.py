"""A loader that is known by its name alone: what it imports is imported in the process of a load, and nowhere else."""

from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model.user.reference import Reference


@dataclass(frozen=True)
class LazyRecipe:
    """Calls a function that is found by its name in whichever process a load runs."""

    reference: Reference

    def __call__(self, build: Any, path: Path | str, device: torch.device, *others: Any, **keywords: Any) -> nn.Module:
        function = self.reference.get()
        keywords = {name: value for name, value in keywords.items() if _takes(function, name)}
        with self.reference.running():
            return function(build, path, device, *others, **keywords)


def _takes(function: Any, keyword: str) -> bool:
    """Return whether a function can be called with a keyword."""
    try:
        parameters = signature(function).parameters.values()
    except ValueError:  # Of some that are written in C nothing is known.
        return False
    return any(one.name == keyword or one.kind is one.VAR_KEYWORD for one in parameters)
