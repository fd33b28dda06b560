"""Factories of `--model`, which are functions of the user or configurations, and the models that they build."""

from collections.abc import Hashable
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from model.examine.trust import one_line
from model.state_dict import state_digest
from model.user.hub_name import REPOSITORY as HUB_REPOSITORY
from model.user.pretrained_folder import ENDINGS, PretrainedFolder
from model.user.reference import Reference
from model.user.tensors_of_files import TensorsOfFiles
from model.user.user_code import UserCodeFailed, naming_failures


class Factory(Hashable, Protocol):
    """A function that builds the user's model, found by its `text` in every process."""

    @property
    def text(self) -> str:
        """The argument of `factory_of` that gives this factory in any working folder."""

    @property
    def name(self) -> str:
        """The name of the model in tables."""

    @property
    def display_name(self) -> str:
        """Its name in messages and records, without the folders of a file."""

    @property
    def folder(self) -> Path | None:
        """The folder of its file; None for installed modules."""

    @property
    def files(self) -> list[Path]:
        """The files that decide which model it builds."""

    def running(self) -> AbstractContextManager[None]:
        """Run its code, in a block, in the surroundings that it expects."""

    def without_arguments(self) -> Any:
        """Return the function, which needs no arguments. Raises `ValueError`, in a line, if there is none."""

    def get(self) -> Any:
        """Return the function. Raises `ValueError`, in a line, if there is none."""


def factory_of(text: str) -> Factory:
    """Return the factory of this name. Raises `ValueError`, in a line, if it names no function and no folder."""
    if found := TensorsOfFiles.of(text) or PretrainedFolder.of(text):
        return found
    if ":" not in text:
        raise ValueError(names_nothing(text))
    return Reference.of(text)


def names_nothing(text: str) -> str:
    """Return a line on a text that names no model: what it is, if that is known, and what to write."""
    shown, path = one_line(repr(text)), Path(text)
    if text.endswith(".py"):
        return f"{shown} names no function; write {one_line(text)}:FUNCTION"
    if path.suffix in ENDINGS and _is_file(path):
        return (
            f"{shown} is a checkpoint, not a model; name it with --checkpoint, and with --model what builds the model"
        )
    if path.suffix in {*ENDINGS, ".json", ".gguf"}:
        return f"there is no {one_line(text)}; name a folder, or a function, file.py:function"
    if HUB_REPOSITORY.fullmatch(text):
        return f"{shown} is no folder here; name a folder, or plan the model of the hub: --plan --model hub:{text}"
    return f"{shown} is neither a folder nor a function; write file.py:function, package.module:function, or a folder"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # No file can have this name.
        return False


@cache
def skeleton(factory: Factory) -> nn.Module:
    """Return a skeleton, built once: a model on meta, or a real one if it cannot be built there."""
    return on_meta(factory)


def on_meta(factory: Factory) -> nn.Module:
    """Build a model on meta; a real one if it cannot be built there."""
    try:
        with torch.device("meta"):
            return build(factory)
    except ValueError:
        return build(factory)


def build(factory: Factory) -> nn.Module:
    """Build a model. Raises `UserCodeFailed`, in a line, if that fails."""
    make = factory.get()
    with factory.running(), naming_failures(f"{factory.display_name} fails"):
        model = make()
    if isinstance(model, nn.Module):
        return model
    kind = type(model).__name__
    raise UserCodeFailed(
        f"{factory.display_name} returns an object of type {kind}, not a torch.nn.Module; return the model"
    )


@cache
def skeleton_digest(factory: Factory) -> str:
    return state_digest(skeleton(factory).state_dict())
