"""Examination of a checkpoint from its headers, before it is loaded.

No code in the checkpoint is run, and only regular files are opened. Values are read only on request.
"""

import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from model.examine.mishaps import AGAIN
from model.examine.pickle_objects import SavedObject, SavedStorage, SavedTensor
from model.examine.safetensors_file import Extent, contiguous_stride, read_header
from model.examine.saved_file import dtype_shape_stride, kind_of, read_saved
from model.examine.shard_index import read_index
from model.examine.tensor_folder import file_name, tensor_name, wrong_name
from model.examine.zip_directory import MalformedFile, UnsoundKey
from model.printable import printable
from model.state_dict import EXTRA_STATE, first_names, untied

# Characters of a name or a reason, which may be long in a hostile file.
LONGEST_PART = 600


# The content of each file of a checkpoint, with tensors as `SavedTensor`.
FileContents = dict[Path, dict[str, Any]]


class UntrustedCheckpoint(Exception):
    """A file is not a sound checkpoint of the model: the `file`, the `key` that is concerned, and the `reason`.

    The reason is a predicate of the key, or of the file: `is empty`.
    """

    def __init__(self, file: Path, key: str | None, reason: str) -> None:
        super().__init__(file, key, reason)
        self.file = file
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        subject = f"{self.file}: {self.key}" if self.key is not None else str(self.file)
        return f"{one_line(subject)} {one_line(self.reason)}"


def one_line(text: str) -> str:
    """Return a message with names from a file as one printable line."""
    return printable(text, LONGEST_PART)


def examine(layout: str, path: Path, expected: Mapping[str, Any], *, contents: bool = False) -> None:
    """Raise `UntrustedCheckpoint` unless `path` is a sound checkpoint of a model.

    `expected` is the model's state dict, which may be on meta: its values are not used. With `contents` every byte is
    read, and compared with the CRC-32 that was written with it; else only headers are read. A .safetensors file has no
    checksum: a change of its values is found by the SHA-256 in a manifest alone.
    """
    EXAMINERS[layout](path, expected, contents)


@contextmanager
def naming(file: Path, key: str | None = None) -> Iterator[None]:
    """Turn errors of a file in this block into `UntrustedCheckpoint`."""
    try:
        yield
    except UnsoundKey as error:
        raise UntrustedCheckpoint(file, error.key, str(error)) from None
    except MalformedFile as error:
        raise UntrustedCheckpoint(file, key, str(error)) from None
    except FileNotFoundError:
        raise UntrustedCheckpoint(file, key, f"is missing: {AGAIN}") from None
    except OSError as error:
        raise UntrustedCheckpoint(file, key, f"cannot be read: {error.strerror}") from None


def _torch(path: Path, contents: bool) -> FileContents:
    with naming(path):
        return {path: _state_dict(path, read_saved(path, contents, follow=True))}


def _state_dict(path: Path, saved: object) -> dict[str, Any]:
    if not isinstance(saved, dict):
        raise UntrustedCheckpoint(path, None, f"holds {_kind_of(saved)}, not a state dict: save model.state_dict()")
    for key in saved:
        if not isinstance(key, str):
            raise UntrustedCheckpoint(path, str(key), "is a key of the state dict, but no string")
    return saved


def _safetensors(path: Path, _: bool) -> FileContents:
    with naming(path):
        return {path: {key: _saved_tensor(key, extent) for key, extent in read_header(path).items()}}


def _saved_tensor(key: str, extent: Extent) -> SavedTensor:
    storage = SavedStorage(key, extent.dtype, extent.end - extent.start)
    return SavedTensor(storage, extent.dtype, 0, extent.shape, contiguous_stride(extent.shape))


def read_shards(layout: str, path: Path, *, contents: bool) -> tuple[FileContents, bool]:
    """Read the files of an index: what it lists, and whether they have keys that it does not list.

    Raises `UntrustedCheckpoint` if a file lacks a key that is listed for it.
    """
    with naming(path):
        keys = read_index(path)
    parts: FileContents = {}
    has_unlisted = False
    for file, listed in keys.items():
        found = READERS[layout.removesuffix("_sharded")](file, contents)[file]
        for key in sorted(set(listed) - found.keys()):
            reason = f"is not in this file, but {path.name} lists it there: copy both again, or correct the index"
            raise UntrustedCheckpoint(file, key, reason)
        parts[file] = {key: found[key] for key in listed}
        has_unlisted |= len(found) > len(listed)
    return parts, has_unlisted


def _examine_files(read: Callable[[Path, bool], FileContents]) -> Callable[[Path, Mapping[str, Any], bool], None]:
    return lambda path, expected, contents: compare(path, read(path, contents), expected)


def _examine_folder(path: Path, expected: Mapping[str, Any], contents: bool) -> None:
    files = {file_name(key): key for key in untied(expected)}
    with naming(path):
        if not stat.S_ISDIR(mode := path.stat().st_mode):
            raise MalformedFile(f"is {kind_of(mode)}, not a folder")
        found = sorted(entry.name for entry in path.iterdir())
    for name in found:
        if name not in files:
            raise UntrustedCheckpoint(path / name, tensor_name(name), wrong_name(name, files, found))
    for name, key in files.items():
        with naming(path / name, key):
            saved = read_saved(path / name, contents, follow=False)
        if reason := _difference(key, saved, expected) or _difference_in_memory(key, saved, expected):
            raise UntrustedCheckpoint(path / name, key, reason)


# Readers of the layouts whose files have their keys in them; the second argument asks for a check of all bytes.
READERS: dict[str, Callable[[Path, bool], FileContents]] = {
    "torch": _torch,
    "safetensors": _safetensors,
    "torch_sharded": lambda path, contents: read_shards("torch_sharded", path, contents=contents)[0],
    "safetensors_sharded": lambda path, contents: read_shards("safetensors_sharded", path, contents=contents)[0],
}
EXAMINERS = {name: _examine_files(read) for name, read in READERS.items()} | {"per_tensor": _examine_folder}


def _kind_of(value: object) -> str:
    if isinstance(value, SavedObject):
        return value.kind
    return "a tensor" if isinstance(value, SavedTensor | Tensor) else f"a {type(value).__name__.lower()}"


def differing(path: Path, parts: FileContents, expected: Mapping[str, Any]) -> Iterator[UntrustedCheckpoint]:
    """Yield every key in which the files at `path` differ from the model; one name of a tied tensor is enough.

    Strides and sharing of memory are not compared.
    """
    saved = {key: (file, value) for file, part in parts.items() for key, value in part.items()}
    firsts = first_names(expected)
    held = {firsts[key] for key in saved if key in firsts}
    for key, first in firsts.items():
        if first not in held:
            yield UntrustedCheckpoint(path, key, "is missing")
    for key, (file, value) in saved.items():
        if reason := _difference(key, value, expected) if key in expected else "is not in the model":
            yield UntrustedCheckpoint(file, key, reason)


def compare(path: Path, parts: FileContents, expected: Mapping[str, Any]) -> None:
    """Raise `UntrustedCheckpoint` unless the files have the tensors of the model, strides and ties included, alone."""
    for difference in differing(path, parts, expected):
        raise difference
    saved = _of_every_name(parts, expected)
    for key, (file, value) in saved.items():
        if reason := _difference_in_memory(key, value, expected):
            raise UntrustedCheckpoint(file, key, reason)
    _compare_sharing(saved, expected)


def require_ties(parts: FileContents, expected: Mapping[str, Any]) -> None:
    """Raise `UntrustedCheckpoint` unless keys that share memory in the model share it in the files, in the same way.

    Keys that share memory only in the files are no fault: in a copy they do not. The files have all keys of the model.
    """
    saved, firsts = _of_every_name(parts, expected), dict[object, str]()
    for key, wanted in expected.items():
        if not isinstance(wanted, Tensor) or (first := firsts.setdefault(wanted.untyped_storage(), key)) == key:
            continue
        (file, value), (other_file, other) = saved[key], saved[first]
        if not isinstance(value, SavedTensor) or not isinstance(other, SavedTensor):
            continue
        if (file, value.storage.key) != (other_file, other.storage.key):
            raise UntrustedCheckpoint(
                file, key, f"has its own memory, where the model ties it to {first}: save it from such a model"
            )
        as_in_model = not any(_difference_in_memory(one, saved[one][1], expected) for one in (key, first))
        same = dtype_shape_stride(wanted) == dtype_shape_stride(expected[first]) and dtype_shape_stride(
            value
        ) == dtype_shape_stride(other)
        if value.offset - other.offset != wanted.storage_offset() - expected[first].storage_offset() or not (
            as_in_model or same
        ):
            raise UntrustedCheckpoint(file, key, f"is at another place of the memory that it shares with {first}")


def _of_every_name(parts: FileContents, expected: Mapping[str, Any]) -> dict[str, tuple[Path, Any]]:
    """Return the file and the saved value of every key of the model; one saved name of a tied tensor is enough."""
    saved = {key: (file, value) for file, part in parts.items() for key, value in part.items()}
    firsts = first_names(expected)
    held = {firsts[key]: found for key, found in saved.items()}
    return {key: saved.get(key, held[first]) for key, first in firsts.items()}


def _difference(key: str, saved: object, expected: Mapping[str, Any]) -> str | None:
    """Return the reason why the model cannot take a saved value unchanged; None if it can."""
    wanted = expected[key]
    if key.endswith(EXTRA_STATE):
        return None
    if not isinstance(saved, SavedTensor) or not isinstance(wanted, Tensor):
        return f"is {_kind_of(saved)}, where the model has {_kind_of(wanted)}"
    dtype, shape, _ = dtype_shape_stride(wanted)
    if saved.dtype != dtype:
        return f"is {saved.dtype}, where the model has {dtype}"
    if saved.shape != shape:
        return f"has the shape {list(saved.shape)}, where the model has {list(shape)}"
    return None


def _difference_in_memory(key: str, saved: object, expected: Mapping[str, Any]) -> str | None:
    """Return the difference in strides of a saved tensor; None if there is none."""
    wanted = expected[key]
    if key.endswith(EXTRA_STATE) or not isinstance(saved, SavedTensor) or not isinstance(wanted, Tensor):
        return None
    if saved.stride == (stride := wanted.stride()):
        return None
    return f"lies in memory with the strides {list(saved.stride)}, where the model has {list(stride)}"


def _compare_sharing(saved: Mapping[str, tuple[Path, Any]], expected: Mapping[str, Any]) -> None:
    """Raise unless the same keys share a storage, at the same offsets from the first of them."""
    firsts: tuple[dict[object, str], dict[object, str]] = ({}, {})
    for key, wanted in expected.items():
        file, value = saved[key]
        if not isinstance(value, SavedTensor) or not isinstance(wanted, Tensor):
            continue
        there = firsts[0].setdefault((file, value.storage.key), key)
        here = firsts[1].setdefault(wanted.untyped_storage(), key)
        if there != here:
            both = [
                f"shares its memory with {other}" if other != key else "has its own memory" for other in (there, here)
            ]
            raise UntrustedCheckpoint(file, key, f"{both[0]}, where in the model it {both[1]}")
        if value.offset - saved[there][1].offset != wanted.storage_offset() - expected[here].storage_offset():
            raise UntrustedCheckpoint(file, key, f"is at another place of the memory that it shares with {here}")
