"""How a checkpoint lies on disk: written, and read back tensor by tensor for the check after a load."""

import ctypes
import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar, cast
from urllib.parse import quote, unquote

import torch
from torch import Tensor, nn

from model.examine.safetensors_file import contents, read_safetensors
from model.examine.shard_index import index, read_index, shards
from model.weights import Progress

# What a manifest says of one file: its `bytes` and its `sha256`.
Entry = dict[str, int | str]

# Writes something to a new file: `Raw` as it is, all else with `torch.save`.
Saved = TypeVar("Saved")
Save = Callable[[object, Path], Saved]

# Stands for what is in a file already, which a library wrote that does not let others write for it.
WRITTEN = object()

# What is smaller is written before a thread would have started.
LARGE_BYTES = 2**20


@dataclass(frozen=True)
class Raw:
    """What a file holds that `torch.save` does not write: bytes, and the bytes of contiguous tensors."""

    parts: list[bytes | Tensor]


class DigestedFile:
    """A file that knows the SHA-256 of what was written to it, without reading it again."""

    def __init__(self, file: IO[bytes], progress: Progress) -> None:
        self._file = file
        self._progress = progress
        self._sha256 = hashlib.sha256()
        self.bytes = 0

    def write(self, data: memoryview | bytes) -> int:
        if len(data) < LARGE_BYTES:
            self._sha256.update(data)
            written = self._file.write(data)
        else:
            # Both let go of the interpreter lock: the digest takes about as long as the write.
            with ThreadPoolExecutor(1) as pool:
                digest = pool.submit(self._sha256.update, data)
                written = self._file.write(data)
                digest.result()
        self.bytes += written
        self._progress(written)
        return written

    def flush(self) -> None:
        self._file.flush()

    def entry(self) -> Entry:
        """What a manifest says of this file."""
        return {"bytes": self.bytes, "sha256": self._sha256.hexdigest()}


def save_plain(content: object, path: Path) -> None:
    """To a new file."""
    if content is WRITTEN:
        return
    with path.open("xb") as file:
        _write(content, file)


def _write(content: object, file: IO[bytes]) -> None:
    if not isinstance(content, Raw):
        torch.save(content, file)
        return
    for part in content.parts:
        if isinstance(part, bytes):
            file.write(part)
        elif part.nbytes:
            file.write(bytes_of(part))


def bytes_of(tensor: Tensor) -> memoryview:
    """Those of a contiguous tensor on the host, not copied: it has to outlive them."""
    return memoryview((ctypes.c_ubyte * tensor.nbytes).from_address(tensor.data_ptr())).cast("B")


def save_digested(content: object, path: Path, progress: Progress) -> Entry:
    """To a new file that is on the disk, not only in the page cache, on return.

    Raises `OSError` if it cannot be written.
    """
    if content is WRITTEN:
        return _digest_written(path, progress)
    with path.open("xb") as file:
        digested = DigestedFile(file, progress)
        try:
            _write(content, cast("IO[bytes]", digested))  # It calls `write` and `flush`, nothing else.
        except RuntimeError as error:
            # After a failed write torch still ends the archive, and hides the failure behind what that runs into.
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
        file.flush()
        os.fsync(file.fileno())
    return digested.entry()


def _digest_written(path: Path, progress: Progress) -> Entry:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = os.fstat(file.fileno()).st_size
    progress(size)
    return {"bytes": size, "sha256": sha256}


def save_sparse(content: object, path: Path) -> None:
    """To a new file that has holes where the bytes of fake tensors would be."""
    if not isinstance(content, Raw):
        with torch.serialization.skip_data(materialize_fake_tensors=True):
            torch.save(content, path)
        return
    with path.open("xb") as file:
        for part in content.parts:
            if isinstance(part, bytes):
                file.write(part)
            else:
                file.seek(part.nbytes, os.SEEK_CUR)
        file.truncate()


def save_torch(state_dict: dict[str, Tensor], folder: Path, save: Save[Saved]) -> dict[str, Saved]:
    """One file."""
    return {"checkpoint.pt": save(state_dict, folder / "checkpoint.pt")}


def save_per_tensor(state_dict: dict[str, Tensor], folder: Path, save: Save[Saved]) -> dict[str, Saved]:
    """One file a tensor, buffers too, in a folder of their own; a tied tensor has one, under its first name.

    Raises `ValueError` for names that some file systems hold to be one.
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
    """One .safetensors file, with a tied tensor in it under its first name alone. Raises as `contents` does."""
    parts = contents({name: state_dict[name] for name in untied(state_dict)})
    return {"model.safetensors": save(Raw(parts), folder / "model.safetensors")}


def save_torch_sharded(state_dict: dict[str, Any], folder: Path, save: Save[Saved]) -> dict[str, Saved]:
    """A few files of `torch.save`, and their index."""
    return _save_shards(shards(state_dict), folder, save, "pytorch_model{}.bin", lambda part: part)


def save_safetensors_sharded(state_dict: dict[str, Any], folder: Path, save: Save[Saved]) -> dict[str, Saved]:
    """A few .safetensors files, and their index; a tied tensor is in them under its first name alone.

    Raises `ValueError` for what is no tensor, or no plain one.
    """
    parts = shards({name: state_dict[name] for name in untied(state_dict)})
    return _save_shards(parts, folder, save, "model{}.safetensors", lambda part: Raw(contents(part)))


def _save_shards(
    parts: list[dict[str, Any]],
    folder: Path,
    save: Save[Saved],
    name: str,
    content: Callable[[dict[str, Any]], object],
) -> dict[str, Saved]:
    files = {name.format(f"-{at:05}-of-{len(parts):05}"): part for at, part in enumerate(parts, 1)}
    saved = {file: save(content(part), folder / file) for file, part in files.items()}
    entrance = f"{name.format('')}.index.json"
    return saved | {entrance: save(Raw([index(files)]), folder / entrance)}


def file_name(name: str) -> str:
    """The file that a tensor has for its own: whatever its name is, one below the folder, and legible."""
    return f"{quote(name, safe='')}.pt"


def untied(state_dict: Mapping[str, Any]) -> list[str]:
    """The names, of those that mean one tensor the first."""
    return list(dict.fromkeys(first_names(state_dict).values()))


def first_names(state_dict: Mapping[str, Any]) -> dict[str, str]:
    """Every name, with the first of those that mean its tensor."""
    first: dict[object, str] = {}
    return {name: first.setdefault(_place(name, tensor), name) for name, tensor in state_dict.items()}


def _place(name: str, tensor: Any) -> object:
    """What is equal for two names of one tensor, and for nothing else."""
    if not isinstance(tensor, Tensor):
        return name
    return tensor.untyped_storage(), tensor.dtype, tensor.storage_offset(), tensor.shape, tensor.stride()


def map_torch(path: Path) -> Any:
    """What one `torch.save` file holds, mapped: nothing is read before it is looked at."""
    with warnings.catch_warnings(action="ignore"):  # Of sparse and quantised tensors beside a state dict, for instance.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def read_torch(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of one `torch.save` file, mapped."""
    yield from map_torch(path).items()


def read_per_tensor(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a folder, mapped one at a time."""
    for file in sorted(path.glob("*.pt")):
        yield unquote(file.stem), torch.load(file, map_location="cpu", weights_only=True, mmap=True)


def read_one_safetensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of one .safetensors file, mapped."""
    yield from read_safetensors(path).items()


def read_torch_sharded(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a few files, mapped one at a time."""
    for file, listed in read_index(path).items():
        yield from _listed(read_torch(file), listed)


def read_safetensors_sharded(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The same of .safetensors files."""
    for file, listed in read_index(path).items():
        yield from _listed(read_one_safetensors(file), listed)


def _listed(tensors: Iterator[tuple[str, Tensor]], names: list[str]) -> Iterator[tuple[str, Tensor]]:
    """The tensors that an index lists for a file, which may hold others."""
    wanted = set(names)
    return ((name, tensor) for name, tensor in tensors if name in wanted)


@dataclass(frozen=True)
class Layout:
    """One way for a checkpoint to lie on disk.

    `save(state_dict, folder, save)` calls `save(content, path)` for every file, and returns what that returned by
    the file's path below the folder; `entrance` is the path below the folder that a strategy is given. `library` is
    the distribution that writes it, if it is not the suite itself.
    """

    entrance: str
    save: Callable[[dict[str, Tensor], Path, Save[Any]], dict[str, Any]]
    read: Callable[[Path], Iterator[tuple[str, Tensor]]]
    library: str = ""

    def save_of(
        self, model: nn.Module, state_dict: dict[str, Any], folder: Path, save: Save[Saved]
    ) -> dict[str, Saved]:
        """The same of a model, whose state dict this is, or is to pass for."""
        del model  # Some libraries save models.
        return self.save(state_dict, folder, save)


LAYOUTS = {
    "torch": Layout("checkpoint.pt", save_torch, read_torch),
    "per_tensor": Layout("tensors", save_per_tensor, read_per_tensor),
    "safetensors": Layout("model.safetensors", save_safetensors, read_one_safetensors),
    "torch_sharded": Layout("pytorch_model.bin.index.json", save_torch_sharded, read_torch_sharded),
    "safetensors_sharded": Layout("model.safetensors.index.json", save_safetensors_sharded, read_safetensors_sharded),
}
