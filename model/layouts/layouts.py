"""Layouts that this suite writes, and reads back tensor by tensor for the check after a load."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.examine.safetensors_file import file_parts, read_safetensors
from model.examine.shard_index import make_index, read_index, shards
from model.examine.tensor_folder import file_name, tensor_name
from model.layouts.files import RawContent, Save, Saved, map_torch
from model.state_dict import untied


def save_torch(state_dict: dict[str, Tensor], folder: Path, save: Save[Saved]) -> dict[str, Saved]:
    """Save one file."""
    return {"checkpoint.pt": save(state_dict, folder / "checkpoint.pt")}


def save_per_tensor(state_dict: dict[str, Tensor], folder: Path, save: Save[Saved]) -> dict[str, Saved]:
    """Save one file for each parameter and buffer in a folder; a tied tensor has one, under its first name.

    Raises `ValueError` for names that differ in case alone.
    """
    (folder / "tensors").mkdir()
    names: dict[str, str] = {}
    for name in untied(state_dict):
        if (other := names.setdefault(file_name(name).casefold(), name)) != name:
            raise ValueError(f"{other} and {name} would be one file where case does not count: rename one of them")
    return {
        (relative := f"tensors/{file_name(name)}"): save(state_dict[name], folder / relative) for name in names.values()
    }


def save_safetensors(state_dict: dict[str, Any], folder: Path, save: Save[Saved]) -> dict[str, Saved]:
    """Save one .safetensors file; a tied tensor is in it under its first name. Raises as `file_parts` does."""
    parts = file_parts({name: state_dict[name] for name in untied(state_dict)})
    return {"model.safetensors": save(RawContent(parts), folder / "model.safetensors")}


def save_torch_sharded(state_dict: dict[str, Any], folder: Path, save: Save[Saved]) -> dict[str, Saved]:
    """Save a few files with `torch.save`, and their index."""
    return _save_shards(shards(state_dict), folder, save, "pytorch_model{}.bin", lambda part: part)


def save_safetensors_sharded(state_dict: dict[str, Any], folder: Path, save: Save[Saved]) -> dict[str, Saved]:
    """Save a few .safetensors files, and their index; a tied tensor is in them under its first name.

    Raises `ValueError` for anything but plain tensors.
    """
    parts = shards({name: state_dict[name] for name in untied(state_dict)})
    return _save_shards(parts, folder, save, "model{}.safetensors", lambda part: RawContent(file_parts(part)))


def _save_shards(
    parts: list[dict[str, Any]], folder: Path, save: Save[Saved], name: str, content: Callable[[dict[str, Any]], object]
) -> dict[str, Saved]:
    files = {name.format(f"-{at:05}-of-{len(parts):05}"): part for at, part in enumerate(parts, 1)}
    saved = {file: save(content(part), folder / file) for file, part in files.items()}
    entrance = f"{name.format('')}.index.json"
    return saved | {entrance: save(RawContent([make_index(files)]), folder / entrance)}


def read_torch(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of one `torch.save` file, mapped."""
    yield from map_torch(path).items()


def read_per_tensor(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a folder, mapped one at a time."""
    for file in sorted(path.glob("*.pt")):
        yield tensor_name(file.name), torch.load(file, map_location="cpu", weights_only=True, mmap=True)


def read_one_safetensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of one .safetensors file, mapped."""
    yield from read_safetensors(path).items()


def _read_sharded(read: Callable[[Path], Iterator[tuple[str, Tensor]]], path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that an index lists for each file, which may hold others, mapped one file at a time."""
    for file, listed in read_index(path).items():
        names = set(listed)
        yield from ((name, tensor) for name, tensor in read(file) if name in names)


read_torch_sharded = partial(_read_sharded, read_torch)
read_safetensors_sharded = partial(_read_sharded, read_one_safetensors)


@dataclass(frozen=True)
class Layout:
    """A layout of a checkpoint on disk.

    `save(state_dict, folder, save)` calls `save(content, path)` for every file, and returns its results by the path
    below the folder; `entrance` is the path below the folder that a strategy is given. `library` is the distribution
    that writes it, if it is not the suite itself, and `saved_with` are its settings that a load depends on.
    """

    entrance: str
    save: Callable[[dict[str, Tensor], Path, Save[Any]], dict[str, Any]]
    read: Callable[[Path], Iterator[tuple[str, Tensor]]]
    library: str = ""
    saved_with: Mapping[str, int | bool] | None = None

    def save_of(
        self, model: nn.Module, state_dict: dict[str, Any], folder: Path, save: Save[Saved]
    ) -> dict[str, Saved]:
        """Save a model, with `state_dict` in place of its own."""
        del model  # Some foreign libraries need it.
        return self.save(state_dict, folder, save)


LAYOUTS = {
    "torch": Layout("checkpoint.pt", save_torch, read_torch),
    "per_tensor": Layout("tensors", save_per_tensor, read_per_tensor),
    "safetensors": Layout("model.safetensors", save_safetensors, read_one_safetensors),
    "torch_sharded": Layout("pytorch_model.bin.index.json", save_torch_sharded, read_torch_sharded),
    "safetensors_sharded": Layout("model.safetensors.index.json", save_safetensors_sharded, read_safetensors_sharded),
}
