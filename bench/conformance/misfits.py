"""Checkpoints that do not fit the model, though a careless loader makes them fit."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.conformance.blueprint import Blueprint, View

StateDict = dict[str, Any]


@dataclass(frozen=True)
class MisfitKind:
    """`alter(state_dict, name)` makes a state dict another's; `victims(model)` are the names that it can be done to."""

    description: str
    alter: Callable[[StateDict, str], object]
    victims: Callable[[Blueprint], list[str]]


def _saved_names(model: Blueprint) -> list[str]:
    return [name.path for name in model.names if name.tensor is not None]


def _tied_names(model: Blueprint) -> list[str]:
    tensors = [name.tensor for name in model.names]
    return [name.path for name in model.names if name.tensor is not None and tensors.count(name.tensor) > 1]


def _drop(state_dict: StateDict, name: str) -> None:
    del state_dict[name]


def _add(state_dict: StateDict, name: str) -> None:
    state_dict[f"{name}_of_another"] = torch.ones(2)


def _cast(state_dict: StateDict, name: str) -> None:
    """To a dtype that a copy turns back without a word."""
    tensor: Tensor = state_dict[name]
    state_dict[name] = torch.ones_like(tensor, dtype=torch.float16 if tensor.dtype != torch.float16 else torch.float32)


def _broadcast(state_dict: StateDict, name: str) -> None:
    """To a shape that a copy spreads over the whole tensor."""
    tensor: Tensor = state_dict[name]
    state_dict[name] = tensor.new_ones(()) if tensor.shape == (1,) else tensor.new_ones((1,))


def _untie(state_dict: StateDict, name: str) -> None:
    """Another value under one of the names of a tensor."""
    state_dict[name] = torch.ones_like(state_dict[name])


def _seeing_tails(model: Blueprint) -> list[str]:
    """Names of views that start behind the first element of a tensor that is in the checkpoint too."""
    saved = {name.tensor for name in model.names if name.persistent}
    tails = {
        index
        for index, tensor in enumerate(model.tensors)
        if isinstance(tensor, View) and not tensor.whole and tensor.of in saved
    }
    return [name.path for name in model.names if name.tensor in tails]


def _move(state_dict: StateDict, name: str) -> None:
    """To an earlier place of the memory that it shares: its values are those of another part."""
    tensor: Tensor = state_dict[name]
    state_dict[name] = torch.as_strided(tensor, tensor.shape, tensor.stride(), tensor.storage_offset() - 1)


MISFITS = {
    "missing": MisfitKind("is missing", _drop, _saved_names),
    "surplus": MisfitKind("has one beside it that the model has not", _add, _saved_names),
    "dtype": MisfitKind("has another dtype", _cast, _saved_names),
    "shape": MisfitKind("has another shape", _broadcast, _saved_names),
    "untied": MisfitKind("has other values than the names it is tied to", _untie, _tied_names),
    "moved": MisfitKind("starts at another element", _move, _seeing_tails),
}


@dataclass(frozen=True)
class MisfitCheckpoint:
    """A model, and a checkpoint that differs from its own in one name. To load it would be wrong."""

    model: Blueprint
    kind: str
    name: str

    def build(self) -> nn.Module:
        return self.model.build()

    def saved(self) -> nn.Module:
        return self.model.saved()

    def state_dict(self, model: nn.Module) -> StateDict:
        state_dict = dict(model.state_dict())
        MISFITS[self.kind].alter(state_dict, self.name)
        return state_dict

    def suspects(self) -> set[str]:
        """The name that differs, the others of its tensor, and those that share its memory."""
        [tensor] = [name.tensor for name in self.model.names if name.path == self.name]
        return self.model.suspects() | {name.path for name in self.model.names if name.tensor == tensor}

    def __str__(self) -> str:
        return f"{self.model}; in the checkpoint {self.name} {MISFITS[self.kind].description}"
