"""A model made from the headers of `.safetensors` files, for plans without a class that builds it."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model.examine.pickle_objects import SavedTensor
from model.examine.trust import READERS, UntrustedCheckpoint, one_line

PREFIX = "tensors-of:"
# Modules within each other: no model has as many.
MOST_LEVELS = 100

# The tensors of a module by their names, and its modules by theirs.
Tree = dict[str, "SavedTensor | Tree"]


@dataclass(frozen=True)
class TensorsOfFiles:
    """The model with the tensors of an index or a file, which has the absolute path `weights`; `shown` is its name."""

    weights: str
    name: str
    shown: str

    @classmethod
    def of(cls, text: str) -> "TensorsOfFiles | None":
        """Make it from its `text`; None for other texts."""
        weights = text.removeprefix(PREFIX)
        return cls(weights, Path(weights).parent.name, Path(weights).name) if weights != text else None

    @property
    def text(self) -> str:
        return f"{PREFIX}{self.weights}"

    @property
    def display_name(self) -> str:
        return self.shown

    @property
    def folder(self) -> Path:
        return Path(self.weights).parent

    @property
    def files(self) -> list[Path]:
        """None: the tensors of the state dict say all that it is."""
        return []

    def running(self) -> AbstractContextManager[None]:
        return nullcontext()

    def get(self) -> "Builder":
        return _builder(self.weights)

    def without_arguments(self) -> "Builder":
        return self.get()


@dataclass(frozen=True, eq=False)
class Builder:
    """Builds the modules with their tensors, which have no values that are meant."""

    tree: Tree

    def __call__(self) -> nn.Module:
        return _module(self.tree)


@cache
def _builder(weights: str) -> Builder:
    """Read the headers, once in a process. Raises `ValueError`, in a line."""
    layout = "safetensors_sharded" if weights.endswith(".json") else "safetensors"
    try:
        parts = READERS[layout](Path(weights), False)
    except UntrustedCheckpoint as error:
        raise ValueError(str(error)) from None
    return Builder(tree_of({name: saved for part in parts.values() for name, saved in part.items()}))


def tree_of(described: Mapping[str, SavedTensor]) -> Tree:
    """Return the tree that dotted names make. Raises `ValueError`, in a line, for names that no modules have."""
    root: Tree = {}
    for path, saved in described.items():
        *modules, name = path.split(".")
        place: SavedTensor | Tree = root
        for module in modules:
            place = place.setdefault(module, {}) if isinstance(place, dict) else place
        if not isinstance(place, dict) or name in place or "" in {*modules, name} or len(modules) > MOST_LEVELS:
            raise ValueError(f"{one_line(repr(path))} cannot be the name of a tensor in modules, beside the others")
        place[name] = saved
    return root


def _module(tree: Tree) -> nn.Module:
    # A list, if all in it is numbered: repeated blocks are found as such.
    is_list = all(isinstance(one, dict) and name.isascii() and name.isdecimal() for name, one in tree.items())
    module: Any = nn.ModuleList() if tree and is_list else nn.Module()
    for name, one in tree.items():
        # Not `add_module` and `register_parameter`: they take no name that a module has a method of.
        if isinstance(one, SavedTensor):
            module._parameters[name] = _parameter(one)  # noqa: SLF001
        else:
            module._modules[name] = _module(one)  # noqa: SLF001
    return module


def _parameter(saved: SavedTensor) -> nn.Parameter:
    """Make a parameter, which is trained unless it is quantised."""
    trained = (saved.dtype.is_floating_point or saved.dtype.is_complex) and saved.dtype.itemsize > 1
    return nn.Parameter(torch.empty(saved.shape, dtype=saved.dtype), requires_grad=trained)
