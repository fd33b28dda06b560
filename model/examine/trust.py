"""Whether a checkpoint can be trusted: told from what it says of itself, before anything of it is loaded.

Nothing here runs what a checkpoint holds, waits for what is no file, or reads values, unless it is asked to.
"""

import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from torch import Tensor

from model.examine.pickle_objects import SavedObject, SavedStorage, SavedTensor
from model.examine.safetensors_file import Extent, contiguous_stride, read_header
from model.examine.saved_file import form, kind_of, read_saved
from model.examine.shard_index import read_index
from model.examine.zip_directory import MalformedFile, UnsoundKey
from model.layouts import file_name, first_names, untied
from model.printable import printable

# Of a name or a reason that a hostile file may have made long.
LONGEST_SHOWN = 600

# What PyTorch calls extra state in a state dict.
EXTRA_STATE = "_extra_state"


# What the files of a checkpoint hold, tensors as `SavedTensor`.
Parts = dict[Path, dict[str, Any]]


class UntrustedCheckpoint(Exception):
    """What lies at a path is not the checkpoint that it is to be: `file`, the `key` that is concerned, the `reason`."""

    def __init__(self, file: Path, key: str | None, reason: str) -> None:
        super().__init__(file, key, reason)
        self.file = file
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        subject = f"{self.file}: {self.key}" if self.key is not None else str(self.file)
        return f"{one_line(subject)}: {one_line(self.reason)}"


def one_line(text: str) -> str:
    """Return a message about a file, which names what is in it, as a terminal can show it."""
    return printable(text, LONGEST_SHOWN)


def examine(layout: str, path: Path, expected: Mapping[str, Any], *, contents: bool = False) -> None:
    """Raise `UntrustedCheckpoint` unless what lies at `path` is a sound checkpoint of a model.

    `expected` is the model's state dict; that of a meta skeleton will do, for values are not looked at. With
    `contents` every byte is read, and has to have the CRC-32 that was written with it; else only headers are. A
    .safetensors file has none: of its values the SHA-256 in a manifest alone can tell.
    """
    EXAMINERS[layout](path, expected, contents)


@contextmanager
def naming(file: Path, key: str | None = None) -> Iterator[None]:
    """Turn what goes wrong with a file in this block into `UntrustedCheckpoint`."""
    try:
        yield
    except UnsoundKey as error:
        raise UntrustedCheckpoint(file, error.key, str(error)) from None
    except MalformedFile as error:
        raise UntrustedCheckpoint(file, key, str(error)) from None
    except FileNotFoundError:
        raise UntrustedCheckpoint(file, key, "is missing") from None
    except OSError as error:
        raise UntrustedCheckpoint(file, key, f"cannot be read: {error.strerror}") from None


def _torch(path: Path, contents: bool) -> Parts:
    with naming(path):
        return {path: _state_dict(path, read_saved(path, contents, follow=True))}


def _state_dict(path: Path, saved: object) -> dict[str, Any]:
    if not isinstance(saved, dict):
        raise UntrustedCheckpoint(path, None, f"holds {_described(saved)}, no state dict")
    for key in saved:
        if not isinstance(key, str):
            raise UntrustedCheckpoint(path, str(key), "is a key of the state dict, but no string")
    return saved


def _safetensors(path: Path, _: bool) -> Parts:
    with naming(path):
        return {path: {key: _saved_tensor(key, extent) for key, extent in read_header(path).items()}}


def _saved_tensor(key: str, extent: Extent) -> SavedTensor:
    storage = SavedStorage(key, extent.dtype, extent.end - extent.start)
    return SavedTensor(storage, extent.dtype, 0, extent.shape, contiguous_stride(extent.shape))


def _sharded(read: Callable[[Path, bool], Parts]) -> Callable[[Path, bool], Parts]:
    """Every file of an index has the keys that the index gives it; what else it has, the index does not mean."""

    def read_all(path: Path, contents: bool) -> Parts:
        with naming(path):
            keys = read_index(path)
        parts: Parts = {}
        for file, listed in keys.items():
            found = read(file, contents)[file]
            for key in sorted(set(listed) - found.keys()):
                said = f"is not in this file, but {path.name} lists it there: copy both again, or correct the index"
                raise UntrustedCheckpoint(file, key, said)
            parts[file] = {key: found[key] for key in listed}
        return parts

    return read_all


def _examine_files(read: Callable[[Path, bool], Parts]) -> Callable[[Path, Mapping[str, Any], bool], None]:
    return lambda path, expected, contents: compare(path, read(path, contents), expected)


def _examine_folder(path: Path, expected: Mapping[str, Any], contents: bool) -> None:
    files = {file_name(key): key for key in untied(expected)}
    with naming(path):
        if not stat.S_ISDIR(mode := path.stat().st_mode):
            raise MalformedFile(f"is {kind_of(mode)} where a folder is to be")
        found = sorted(entry.name for entry in path.iterdir())
    for name in found:
        if name not in files:
            meant = unquote(name.removesuffix(".pt"))
            raise UntrustedCheckpoint(path / name, meant, _why_strange(name, meant, files, found))
    for name, key in files.items():
        with naming(path / name, key):
            saved = read_saved(path / name, contents, follow=False)
        if reason := _difference(key, saved, expected) or _difference_in_memory(key, saved, expected):
            raise UntrustedCheckpoint(path / name, key, reason)


def _why_strange(name: str, meant: str, files: Mapping[str, str], found: list[str]) -> str:
    """What is wrong with a file that no tensor of the model has."""
    if meant in files.values():
        return f"is another spelling of {file_name(meant)}"
    if same := next(
        (other for other in (*files, *found) if other != name and other.casefold() == name.casefold()), None
    ):
        return f"would be one file with {same} where case does not count"
    if "/" in meant or "\\" in meant or meant in {".", ".."} or meant.startswith("../"):
        return "stands for a name that leads out of the folder"
    return "belongs to no tensor of the model"


# Of the layouts whose files say by themselves which keys they hold: how those are read.
READERS: dict[str, Callable[[Path, bool], Parts]] = {
    "torch": _torch,
    "safetensors": _safetensors,
    "torch_sharded": _sharded(_torch),
    "safetensors_sharded": _sharded(_safetensors),
}
EXAMINERS = {name: _examine_files(read) for name, read in READERS.items()} | {"per_tensor": _examine_folder}


def _described(value: object) -> str:
    if isinstance(value, SavedObject):
        return value.kind
    return "a tensor" if isinstance(value, SavedTensor | Tensor) else f"a {type(value).__name__.lower()}"


def differing(path: Path, parts: Parts, expected: Mapping[str, Any]) -> Iterator[UntrustedCheckpoint]:
    """Every key in which the files at `path` have something else than the model; of the names of a tensor one will do.

    How tensors lie in memory is not looked at: their strides, and which keys share it.
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


def compare(path: Path, parts: Parts, expected: Mapping[str, Any]) -> None:
    """Raise `UntrustedCheckpoint` unless the files have what the model has, as it has it, and nothing else."""
    for difference in differing(path, parts, expected):
        raise difference
    saved = _of_every_name(parts, expected)
    for key, (file, value) in saved.items():
        if reason := _difference_in_memory(key, value, expected):
            raise UntrustedCheckpoint(file, key, reason)
    _compare_sharing(saved, expected)


def require_ties(parts: Parts, expected: Mapping[str, Any]) -> None:
    """Raise `UntrustedCheckpoint` unless keys that share memory in the model share it in the files, in the same way.

    What shares it in the files alone is no fault: in a copy it does not. The files have what the model has.
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
                file, key, f"has its own memory, where in the model it shares its memory with {first}"
            )
        as_in_model = not any(_difference_in_memory(one, saved[one][1], expected) for one in (key, first))
        same = form(wanted) == form(expected[first]) and form(value) == form(other)
        if value.offset - other.offset != wanted.storage_offset() - expected[first].storage_offset() or not (
            as_in_model or same
        ):
            raise UntrustedCheckpoint(file, key, f"is at another place of the memory that it shares with {first}")


def _of_every_name(parts: Parts, expected: Mapping[str, Any]) -> dict[str, tuple[Path, Any]]:
    """What is saved of every key of the model, of the names of a tensor one at least, and the file."""
    saved = {key: (file, value) for file, part in parts.items() for key, value in part.items()}
    firsts = first_names(expected)
    held = {firsts[key]: found for key, found in saved.items()}
    return {key: saved.get(key, held[first]) for key, first in firsts.items()}


def _difference(key: str, saved: object, expected: Mapping[str, Any]) -> str | None:
    """What is wrong with a saved value that the model could not take without changing it."""
    wanted = expected[key]
    if key.endswith(EXTRA_STATE):
        return None
    if not isinstance(saved, SavedTensor) or not isinstance(wanted, Tensor):
        return f"is {_described(saved)}, where the model has {_described(wanted)}"
    dtype, shape, _ = form(wanted)
    if saved.dtype != dtype:
        return f"is {saved.dtype}, where the model has {dtype}: a copy would cast it"
    if saved.shape != shape:
        return f"has the shape {list(saved.shape)}, where the model has {list(shape)}: a copy may broadcast it"
    return None


def _difference_in_memory(key: str, saved: object, expected: Mapping[str, Any]) -> str | None:
    """What is wrong with the strides of a saved tensor that is the model's in all else."""
    wanted = expected[key]
    if key.endswith(EXTRA_STATE) or not isinstance(saved, SavedTensor) or not isinstance(wanted, Tensor):
        return None
    if saved.stride == (stride := wanted.stride()):
        return None
    return f"lies in memory with the strides {list(saved.stride)}, where the model has {list(stride)}"


def _compare_sharing(saved: Mapping[str, tuple[Path, Any]], expected: Mapping[str, Any]) -> None:
    """Raise unless the same keys share a storage of a file, each as far behind the first of them."""
    firsts: tuple[dict[object, str], dict[object, str]] = ({}, {})
    for key, wanted in expected.items():
        file, value = saved[key]
        if not isinstance(value, SavedTensor) or not isinstance(wanted, Tensor):
            continue
        there = firsts[0].setdefault((file, value.storage.key), key)
        here = firsts[1].setdefault(wanted.untyped_storage(), key)
        if there != here:
            shown = [
                f"shares its memory with {other}" if other != key else "has its own memory" for other in (there, here)
            ]
            raise UntrustedCheckpoint(file, key, f"{shown[0]}, where in the model it {shown[1]}")
        if value.offset - saved[there][1].offset != wanted.storage_offset() - expected[here].storage_offset():
            raise UntrustedCheckpoint(file, key, f"is at another place of the memory that it shares with {here}")
