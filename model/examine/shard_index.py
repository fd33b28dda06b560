"""Checkpoints in several files with an index of their keys, in the format of Hugging Face."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from model.examine.limits import MOST_FILES, ReadAllowance
from model.examine.safetensors_file import read_json
from model.examine.saved_file import open_regular
from model.examine.zip_directory import MOST_INDEX_BYTES, MalformedFile, UnsoundKey, pread
from model.printable import printable

SHARDS = 3


def shards(state_dict: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Divide a state dict into parts of about as many bytes, in order.

    Tensors that share memory are in one part, values other than tensors in the first.
    """
    keys: dict[Any, list[str]] = {None: []}
    for key, value in state_dict.items():
        keys.setdefault(_memory(value), []).append(key)
    unplaced, taken, total = len(keys), 0, sum(map(_bytes, keys))
    parts: list[dict[str, Any]] = [{}]
    for memory, names in keys.items():
        is_full = taken * SHARDS >= total * len(parts) or unplaced <= SHARDS - len(parts)
        if parts[-1] and is_full and len(parts) < SHARDS:
            parts.append({})
        parts[-1].update((name, state_dict[name]) for name in names)
        taken, unplaced = taken + _bytes(memory), unplaced - 1
    return parts


def _memory(value: Any) -> Any:
    return value.untyped_storage() if isinstance(value, Tensor) else None


def _bytes(memory: Any) -> int:
    return 0 if memory is None else memory.nbytes()


def make_index(files: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Return the index of files with this content."""
    memories = {_memory(value) for part in files.values() for value in part.values()}
    places = {key: file for file, part in files.items() for key in part}
    content = {"metadata": {"total_size": sum(map(_bytes, memories))}, "weight_map": places}
    return f"{json.dumps(content, indent=2, sort_keys=True)}\n".encode()


def read_index(path: Path) -> dict[Path, list[str]]:
    """Read the keys of every file, which is in the folder of the index or below it.

    Raises `MalformedFile` or `OSError`.
    """
    with open_regular(path, follow=True) as opened:
        if (size := os.fstat(opened.fileno()).st_size) > MOST_INDEX_BYTES:
            raise MalformedFile(f"is an index of {size:,} bytes, more than any checkpoint's")
        content = read_json(pread(opened.fileno(), size, 0), "is", ReadAllowance.of(size))
    places = content.get("weight_map")
    if not isinstance(places, dict):
        raise MalformedFile("has no weight_map, and is no index: name the index, or a checkpoint")
    keys: dict[str, list[str]] = {}
    for key, file in places.items():
        if not isinstance(file, str) or not _is_name(file):
            raise UnsoundKey(key, "is listed without the name of a file: correct the index")
        keys.setdefault(file, []).append(key)
        if len(keys) > MOST_FILES:
            raise MalformedFile(f"is an index of more than {MOST_FILES:,} files: save the checkpoint in fewer")
    for file, [key, *_] in keys.items():
        if _leads_elsewhere(file):
            raise UnsoundKey(key, f"is listed in {printable(file)}, which leads out of the folder: correct the index")
    _require_different(path.parent, keys)
    return {path.parent / file: listed for file, listed in keys.items()}


def _require_different(folder: Path, files: Iterable[str]) -> None:
    """Raise `MalformedFile` if two names are of one file, which would be read twice."""
    names: dict[tuple[int, int], str] = {}
    for file in files:
        try:
            status = (folder / file).stat()
        except OSError:
            continue  # Reading it raises the error.
        if (other := names.setdefault((status.st_dev, status.st_ino), file)) != file:
            raise MalformedFile(
                f"lists {printable(other)} and {printable(file)}, which are one file: correct the index"
            )


def _is_name(file: str) -> bool:
    """Return whether a file can have this name: half of a surrogate pair has no bytes."""
    try:
        os.fsencode(file)
    except UnicodeEncodeError:
        return False
    return True


def _leads_elsewhere(file: str) -> bool:
    """Return whether a relative path may lead out of its folder."""
    parts = file.split("/")
    return not {"", ".", ".."}.isdisjoint(parts) or "\0" in file or "\\" in file
