"""Faults of .safetensors files, and of one file or the index of a checkpoint in several files."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.selftest.faults.fault import Fault, Inject, edited, resaved
from bench.selftest.faults.pickles import executes

NAME = "trf_blocks.0.att.out_proj.bias"  # [16], in the second of three files

Header = dict[str, Any]


def _index(change: Callable[[dict[str, Any]], object]) -> Inject:
    """Change the index."""

    def inject(path: Path) -> None:
        index = json.loads(path.read_text(encoding="utf-8"))
        change(index)
        path.write_text(json.dumps(index), encoding="utf-8")

    return inject


def _places(change: Callable[[dict[str, str]], object]) -> Inject:
    """Change the file of a tensor in the index."""
    return _index(lambda index: change(index["weight_map"]))


def _placed(file: str) -> Inject:
    """List a tensor for a wrong file."""
    return _places(lambda places: places.update({NAME: file}))


def _shard_of(path: Path) -> Path:
    """Return the file of a tensor: the one in the index, or the only one."""
    if path.suffix == ".safetensors":
        return path
    return path.with_name(json.loads(path.read_text(encoding="utf-8"))["weight_map"][NAME])


def _another_of(path: Path) -> Path:
    """Return a file that is read after it."""
    return path.with_name(max(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))


def _shard(damage: Callable[[Path], object]) -> Inject:
    """Damage the file of a tensor."""
    return lambda path: damage(_shard_of(path))


def _elsewhere(path: Path) -> None:
    _placed(_another_of(path).name)(path)


def _twice(path: Path) -> None:
    """Add a line to the index that names another file, before the right one."""
    line = f'"{NAME}":'
    path.write_text(
        path.read_text(encoding="utf-8").replace(line, f'{line} "{_another_of(path).name}", {line}'), encoding="utf-8"
    )


def _swapped(path: Path) -> None:
    """Exchange the names of two files."""
    one, other = _shard_of(path), _another_of(path)
    one.rename(path.with_name("third"))
    other.rename(one)
    path.with_name("third").rename(other)


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _header(change: Callable[[Header], object]) -> Inject:
    """Change the header of the .safetensors file of a tensor."""
    return _text(lambda text: json.dumps(_changed(json.loads(text), change)).encode())


def _changed(header: Header, change: Callable[[Header], object]) -> Header:
    change(header)
    return header


def _text(change: Callable[[bytes], bytes]) -> Inject:
    """Edit the text of a header, and put its length right."""

    def rewrite(content: bytes) -> bytes:
        end = 8 + int.from_bytes(content[:8], "little")
        text = change(content[8:end])
        return len(text).to_bytes(8, "little") + text + content[end:]

    return _shard(edited(rewrite))


def _entry(**changed: object) -> Inject:
    return _header(lambda header: header[NAME].update(changed))


def _moved(header: Header, by: int) -> None:
    """Move the places of one tensor and of all behind it."""
    start = header[NAME]["data_offsets"][0]
    for name in header.keys() - {"__metadata__"}:
        first, last = header[name]["data_offsets"]
        if first >= start:
            header[name]["data_offsets"] = [first + by, last + by]


def _with_a_gap(path: Path) -> None:
    """Put bytes between two tensors that belong to neither, and remove as many at the end."""
    _header(lambda header: _moved(header, 8))(path)
    _shard(edited(lambda content: content + bytes(8)))(path)


def _key_twice(text: bytes) -> bytes:
    """Name a tensor twice, first with another dtype."""
    entry = json.dumps(json.loads(text)[NAME] | {"dtype": "I32"})
    return f'{{"{NAME}":{entry},'.encode() + text[1:]


_OUT = "is listed in .*, which leads out of the folder"
_NOT_THERE = r"^is not in this file, but \S+ lists it there"

_INDEX_FAULTS = {
    "index empty": Fault(edited(lambda _: b""), "^is no JSON: download or copy it again$"),
    "index cut": Fault(edited(lambda content: content[:-9]), "^is no JSON: download or copy it again$"),
    "index that is a list": Fault(
        edited(lambda content: b"[" + content + b"]"), "^is no JSON object: download or copy it again$"
    ),
    "index of nothing": Fault(_index(dict.clear), "has no weight_map"),
    "key twice in the index": Fault(_twice, "is there twice", NAME),
    "key not in the index": Fault(_places(lambda places: places.pop(NAME)), "^is missing$", NAME),
    "key in the index alone": Fault(
        _places(lambda places: places.update(stranger=places[NAME])), _NOT_THERE, "stranger"
    ),
    "key in another file": Fault(_elsewhere, _NOT_THERE, NAME),
    "files swapped": Fault(_swapped, _NOT_THERE, "final_norm.scale"),
    "file missing": Fault(_shard(Path.unlink), "^is missing: download or copy it again$"),
    "file above the folder": Fault(_placed("../above.bin"), _OUT, NAME),
    "folder above for a file": Fault(_placed(".."), _OUT, NAME),
    "absolute file": Fault(lambda path: _placed(str(_shard_of(path)))(path), _OUT, NAME),
    "number for a file": Fault(
        _index(lambda index: index["weight_map"].update({NAME: 7})), "is listed without the name of a file", NAME
    ),
    "FIFO for a file": Fault(_shard(_fifo), "is a FIFO, not a file"),
    "file cut": Fault(_shard(lambda path: os.truncate(path, path.stat().st_size - 1)), "is cut off|tensors end at"),
}

TORCH_SHARD_FAULTS = _INDEX_FAULTS | {
    "file that executes": Fault(_shard(executes), r"uses (posix|nt)\.mkdir", "final_norm.scale"),
    "file of a list": Fault(_shard(lambda path: torch.save([], path)), "holds a list, not a state dict"),
    "dtype that would be cast": Fault(
        _shard(resaved(lambda part: part.update({NAME: part[NAME].half()}))), r"is torch\.float16", NAME
    ),
}

SAFETENSORS_FAULTS = {
    "file empty": Fault(_shard(edited(lambda _: b"")), "^is empty: download or copy it again$"),
    "file of another kind": Fault(
        _shard(lambda path: torch.save({}, path)), "is a file of torch.save, where a .safetensors file is expected"
    ),
    "header beyond the file": Fault(
        _shard(edited(lambda content: b"\xff\xff\0\0" + content[4:])), "is cut off at .* a header of 65,535 bytes"
    ),
    "header cut": Fault(_text(lambda text: text[:-20]), "has a header that is no JSON: download"),
    "header that is a list": Fault(_text(lambda text: b"[" + text + b"]"), "has a header that is no JSON object"),
    "key twice": Fault(_text(_key_twice), "is there twice", NAME),
    "dtype that torch has not": Fault(_entry(dtype="Q4"), "has the dtype Q4, which torch does not have", NAME),
    "dtype of as many bits": Fault(_entry(dtype="I32"), r"is torch\.int32", NAME),
    "as many values otherwise": Fault(_entry(shape=[4, 4]), r"has the shape \[4, 4\]", NAME),
    "row that would broadcast": Fault(_entry(shape=[1]), "has 64 bytes, where .* has 4$", NAME),
    "negative shape": Fault(_entry(shape=[-4, -4]), "has a shape, or offsets, that no tensor has", NAME),
    "no shape": Fault(_header(lambda header: header[NAME].pop("shape")), "has something else in the header", NAME),
    "bytes between": Fault(_with_a_gap, "starts at byte .* of the file, where .* would be next", NAME),
    "tensors that overlap": Fault(_header(lambda header: _moved(header, -4)), "starts at byte", NAME),
    "bytes behind": Fault(_shard(edited(lambda content: content + bytes(8))), "where its tensors end at"),
}

SAFETENSORS_SHARD_FAULTS = _INDEX_FAULTS | SAFETENSORS_FAULTS
