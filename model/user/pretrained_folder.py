"""A folder as `save_pretrained` writes it, as the factory of its model: the user writes no code."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model.user.example_inputs import Input, inputs
from model.user.from_config import FromConfig, from_config
from model.user.reference import in_surroundings
from model.user.user_code import UserCodeFailed, telling

CONFIG = "config.json"
# In the order in which `from_pretrained` looks for them.
WEIGHTS = tuple(
    f"{name}{index}"
    for name in ("model.safetensors", "pytorch_model.bin", "diffusion_pytorch_model.safetensors")
    for index in ("", ".index.json")
)
# What the other checkpoints of a folder end in.
ENDINGS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt"}


@dataclass(frozen=True)
class PretrainedFolder:
    """The model that a configuration describes, by the file's whole path; its first input, where one was found."""

    text: str
    inputs: tuple[Input, ...] = ()

    @classmethod
    def of(cls, text: str) -> "PretrainedFolder | None":
        """That of a folder, or of a JSON file; None of a name that is neither.

        Raises `ValueError`, in a line, if a folder has no configuration.
        """
        path = _whole(text)
        try:
            is_folder, is_file = path.is_dir(), path.is_file()
        except (OSError, ValueError):  # No file can have such a name.
            return None
        if is_folder:
            if not (path / CONFIG).is_file():
                raise ValueError(f"{path.name} {_why_no_config(path)}")
            return cls(str(path / CONFIG))
        if is_file and path.suffix == ".gguf":
            raise ValueError(f"{path.name} is GGUF, {_GGUF}")
        return cls(str(path)) if is_file and path.suffix == ".json" else None

    @property
    def path(self) -> Path:
        return Path(self.text)

    @property
    def folder(self) -> Path:
        return self.path.parent

    @property
    def name(self) -> str:
        """That of the folder; in the hub's cache that of the model: `models--OWNER--NAME/snapshots/COMMIT`."""
        if self.path.name != CONFIG:
            return self.path.stem
        if self.folder.parent.name == "snapshots":
            return self.folder.parent.parent.name.rpartition("--")[2]
        return self.folder.name

    @property
    def shown(self) -> str:
        return f"{self.name}/{self.path.name}"

    @property
    def files(self) -> list[Path]:
        """The configuration, and the file of the library that has its version."""
        return [self.path, Path(import_module(self._made.library).__file__ or "")]

    def running(self) -> AbstractContextManager[None]:
        return in_surroundings(self._made.library, self.shown)

    @property
    def _made(self) -> FromConfig:
        return _from_config(self.text, self.shown)

    def get(self) -> "Described":
        return Described(self._made, self.inputs)

    def without_arguments(self) -> "Described":
        return self.get()

    def with_example(self) -> "PretrainedFolder":
        """The same with a first input, where one can be made that its skeleton takes."""
        made = self._made
        try:
            with self.running(), telling(self.shown), torch.device("meta"):
                return replace(self, inputs=inputs(made()))
        except UserCodeFailed:  # Whoever builds it next says so.
            return self

    def weights(self) -> Path:
        """The checkpoint beside the configuration. Raises `ValueError`, in a line, if there is none."""
        for name in WEIGHTS:
            if (self.folder / name).is_file():
                return self.folder / name
        endings = {file.suffix for file in self.folder.iterdir()}
        if endings & ENDINGS:
            return self.folder
        if ".gguf" in endings:
            raise ValueError(f"{self.name} has its weights as GGUF, {_GGUF}")
        raise ValueError(
            f"{self.name} has no weights, such as {WEIGHTS[0]} or {WEIGHTS[1]}: add them, or name them with "
            f"--checkpoint; --plan needs none, and --model {self.shown} takes random ones"
        )


def weights_of(model: str) -> str | None:
    """The checkpoint in a folder that `--model` names; None of a function, and of a configuration alone.

    Raises `ValueError`, in a line, if there is none.
    """
    found = PretrainedFolder.of(model)
    return str(found.weights()) if found and found.folder.samefile(model) else None


@dataclass(frozen=True)
class Described:
    """Builds the model; `example` is what it is asked first."""

    made: FromConfig
    inputs: tuple[Input, ...]

    def __call__(self) -> nn.Module:
        return self.made()

    @property
    def example(self) -> Any:
        """What makes it, by the names of arguments; None: there is nothing to ask."""
        return self._tensors if self.inputs else None

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {one.name: one.tensor() for one in self.inputs}


_GGUF = "which is not loaded here: convert it to .safetensors"


def _whole(text: str) -> Path:
    path = Path(text).absolute()
    return path.resolve() if ".." in path.parts else path


def _why_no_config(folder: Path) -> str:
    names = {file.name for file in folder.iterdir()}
    if "adapter_config.json" in names:
        return "is an adapter of PEFT, which is no model by itself: write a factory that builds the model with it"
    if "model_index.json" in names:
        return f"is a pipeline of diffusers: name a folder in it that has a {CONFIG}, or write a factory"
    if any(name.endswith(".gguf") for name in names):
        return f"holds GGUF, {_GGUF}"
    return f"holds no {CONFIG}; name the folder of a model of transformers, package.module:function or file.py:function"


@cache
def _from_config(text: str, shown: str) -> FromConfig:
    """Read once a process: what it imports takes seconds."""
    try:
        with in_surroundings("transformers", shown):
            return from_config(Path(text))
    except ValueError as error:
        raise ValueError(f"{shown}: {error}") from None
