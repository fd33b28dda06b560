"""How a checkpoint lies on disk: written, and read back tensor by tensor for the check after a load."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar, cast
from urllib.parse import quote, unquote

import torch
from torch import Tensor

from model.weights import Progress

# What a manifest says of one file: its `bytes` and its `sha256`.
Entry = dict[str, int | str]

# Writes something to a new file with `torch.save`, or as that would.
Saved = TypeVar("Saved")
Save = Callable[[object, Path], Saved]

# What is smaller is written before a thread would have started.
LARGE_BYTES = 2**20


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


def save_digested(content: object, path: Path, progress: Progress) -> Entry:
    """`torch.save` to a new file that is on the disk, not only in the page cache, on return.

    Raises `OSError` if it cannot be written.
    """
    with path.open("xb") as file:
        digested = DigestedFile(file, progress)
        try:
            torch.save(content, cast("IO[bytes]", digested))  # It calls `write` and `flush`, nothing else.
        except RuntimeError as error:
            # After a failed write torch still ends the archive, and hides the failure behind what that runs into.
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
        file.flush()
        os.fsync(file.fileno())
    return digested.entry()


def save_sparse(content: object, path: Path) -> None:
    """`torch.save` of fake tensors to a new file that has holes where their bytes would be."""
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save(content, path)


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


def file_name(name: str) -> str:
    """The file that a tensor has for its own: whatever its name is, one below the folder, and legible."""
    return f"{quote(name, safe='')}.pt"


def untied(state_dict: Mapping[str, Any]) -> list[str]:
    """The names, of those that mean one tensor the first."""
    first: dict[object, str] = {}
    return [name for name, tensor in state_dict.items() if first.setdefault(_place(name, tensor), name) == name]


def _place(name: str, tensor: Any) -> object:
    """What is equal for two names of one tensor, and for nothing else."""
    if not isinstance(tensor, Tensor):
        return name
    return tensor.untyped_storage(), tensor.dtype, tensor.storage_offset(), tensor.shape, tensor.stride()


def read_torch(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of one `torch.save` file, mapped: nothing is read before it is looked at."""
    state_dict: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    yield from state_dict.items()


def read_per_tensor(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a folder, mapped one at a time."""
    for file in sorted(path.glob("*.pt")):
        yield unquote(file.stem), torch.load(file, map_location="cpu", weights_only=True, mmap=True)


@dataclass(frozen=True)
class Layout:
    """One way for a checkpoint to lie on disk.

    `save(state_dict, folder, save)` calls `save(content, path)` for every file, and returns what that returned by
    the file's path below the folder; `entrance` is the path below the folder that a strategy is given.
    """

    entrance: str
    save: Callable[[dict[str, Tensor], Path, Save[Any]], dict[str, Any]]
    read: Callable[[Path], Iterator[tuple[str, Tensor]]]


LAYOUTS = {
    "torch": Layout("checkpoint.pt", save_torch, read_torch),
    "per_tensor": Layout("tensors", save_per_tensor, read_per_tensor),
}
