"""Folders of `save_pretrained` as factories of their models: the user writes no code."""

from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model.user.example_inputs import ExampleInput, example_inputs
from model.user.from_config import FromConfig, NoClass, from_config
from model.user.reference import in_surroundings
from model.user.user_code import UserCodeFailed, naming_failures

CONFIG = "config.json"
# In the order in which `from_pretrained` looks for them.
WEIGHTS = tuple(
    f"{name}{index}"
    for name in ("model.safetensors", "pytorch_model.bin", "diffusion_pytorch_model.safetensors")
    for index in ("", ".index.json")
)
# Endings of other checkpoints in a folder.
ENDINGS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt"}


@dataclass(frozen=True)
class PretrainedFolder:
    """The model of a configuration, by the absolute path of the file, with example inputs if any were found.

    `shown` is its name in messages and records, if that is not the file's.
    """

    text: str
    inputs: tuple[ExampleInput, ...] = ()
    shown: str = ""

    @classmethod
    def of(cls, text: str) -> "PretrainedFolder | None":
        """Make it from the name of a folder or of a JSON file; None for other names.

        Raises `ValueError`, in a line, if a folder has no configuration.
        """
        path = _whole(text)
        try:
            is_folder, is_file = path.is_dir(), path.is_file()
        except (OSError, ValueError):  # No file can have this name.
            return None
        if is_folder:
            if not (path / CONFIG).is_file():
                raise ValueError(f"{path.name} {why_no_config({file.name for file in path.iterdir()})}")
            return cls(str(path / CONFIG))
        if is_file and path.name.endswith(".index.json"):
            raise ValueError(f"{path.name} is the index of a checkpoint, not a model; name its folder")
        if is_file and path.suffix == ".gguf":
            raise ValueError(f"{path.name} is a GGUF file, {_GGUF}")
        return cls(str(path)) if is_file and path.suffix == ".json" else None

    @property
    def path(self) -> Path:
        return Path(self.text)

    @property
    def folder(self) -> Path:
        return self.path.parent

    @property
    def name(self) -> str:
        """The name of the folder, or in `models--OWNER--NAME/snapshots/COMMIT` of the hub's cache that of the model."""
        if self.path.name != CONFIG:
            return self.path.stem
        if self.folder.parent.name == "snapshots":
            return self.folder.parent.parent.name.rpartition("--")[2]
        return self.folder.name

    @property
    def display_name(self) -> str:
        return self.shown or f"{self.name}/{self.path.name}"

    @property
    def files(self) -> list[Path]:
        """The configuration, and a file of the library that changes with its version."""
        return [self.path, Path(import_module(self._made.library).__file__ or "")]

    def running(self) -> AbstractContextManager[None]:
        return in_surroundings(self._made.library, self.display_name)

    @property
    def _made(self) -> FromConfig:
        return _from_config(self.text, self.display_name)

    def get(self) -> "PretrainedFactory":
        return PretrainedFactory(self._made, self.inputs)

    def without_arguments(self) -> "PretrainedFactory":
        return self.get()

    def with_example(self) -> "PretrainedFolder":
        """Return a copy with example inputs that a skeleton of the model takes, if there are any."""
        made = self._made
        try:
            with self.running(), naming_failures(self.display_name), torch.device("meta"):
                return replace(self, inputs=example_inputs(made()))
        except UserCodeFailed:  # The next build raises the same.
            return self

    def weights(self) -> Path:
        """Return the checkpoint beside the configuration. Raises `ValueError`, in a line, if there is none."""
        for name in WEIGHTS:
            if (self.folder / name).is_file():
                return self.folder / name
        endings = {file.suffix for file in self.folder.iterdir()}
        if endings & ENDINGS:
            return self.folder
        if ".gguf" in endings:
            raise ValueError(f"{self.name} has weights in GGUF files only, {_GGUF}")
        raise ValueError(
            f"{self.name} has no weights, such as {WEIGHTS[0]}; add them, name them with --checkpoint, plan without "
            f"them (--plan), or measure with random ones (--model {self.display_name})"
        )


def weights_of(model: str) -> str | None:
    """Return the checkpoint in a folder that `--model` names; None for a function, or for a configuration alone.

    Raises `ValueError`, in a line, if there is none.
    """
    found = PretrainedFolder.of(model)
    if found is None or not found.folder.samefile(model):
        return None
    return str(Path(model) / found.weights().relative_to(found.folder))


def headers_of(model: str) -> Path | None:
    """Return the .safetensors file, or the index of some, in a folder that `--model` names; None if there is none."""
    try:
        weights = weights_of(model)
    except ValueError:
        return None
    return Path(weights) if weights and ".safetensors" in Path(weights).name and Path(weights).is_file() else None


@dataclass(frozen=True)
class PretrainedFactory:
    """Builds the model; `example` makes the input of its first forward pass."""

    made: FromConfig
    inputs: tuple[ExampleInput, ...]

    def __call__(self) -> nn.Module:
        return self.made()

    @property
    def example(self) -> Any:
        """The function that makes the input, by the names of arguments; None if there is none."""
        return self._tensors if self.inputs else None

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {one.name: one.tensor() for one in self.inputs}


# What follows the name of an adapter.
ADAPTER = (
    "is a PEFT adapter, not a model; merge it into its base model (merge_and_unload), or write a "
    "function that builds both"
)
_GGUF = "which PyTorch does not load; name a folder with .safetensors files"


def _whole(text: str) -> Path:
    path = Path(text).absolute()
    return path.resolve() if ".." in path.parts else path


def why_no_config(names: Collection[str]) -> str:
    """Return what a folder with these files is, if it holds no configuration; the text follows its name."""
    if "adapter_config.json" in names:
        return ADAPTER
    if "model_index.json" in names:
        return f"is a diffusers pipeline, not a model; name a folder in it that has a {CONFIG}"
    if any(name.endswith(".gguf") for name in names):
        return f"has GGUF files only, {_GGUF}"
    return f"has no {CONFIG}; name the folder of a Hugging Face model, or a function, file.py:function"


@cache
def _from_config(text: str, display_name: str) -> FromConfig:
    """Read a configuration once in a process: its imports take seconds."""
    try:
        with in_surroundings("transformers", display_name):
            return from_config(Path(text))
    except NoClass as error:
        raise error.of(display_name) from None
    except ValueError as error:
        raise ValueError(f"{display_name}: {error}") from None
