"""A checkpoint as a state dict: of one file or several, of `torch.save` or of safetensors."""

import ctypes
import json
import math
import os
from pathlib import Path

import torch

from bench.strategies.reading.assign import cast
from bench.strategies.reading.fit import with_tied_names

# https://huggingface.co/docs/safetensors/index#format
SAFETENSORS_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F4": torch.float4_e2m1fn_x2,
}


def read(path, location, model, *, mmap=False, dtype=None):
    """The state dict at `path`, as `torch.load` gives it: of one file, or of all that an index lists.

    A file may be one of safetensors. That has one of the names of a tied tensor; the others are those that it has in
    `model`. With a `dtype` floating-point tensors are cast on the host, on the way from a file to `location`. Raises
    `ValueError` for files that contradict their index or themselves.
    """
    state_dict = {}
    for file, listed in files_of(path).items():
        if is_safetensors(file):
            found = read_safetensors(file, "cpu" if dtype else location, mmap, listed)
        else:
            found = torch.load(file, map_location="cpu" if dtype else location, weights_only=True, mmap=mmap)
        found = only_listed(file, found, listed)
        state_dict |= cast(found, dtype, location) if dtype else found
        del found  # Before the next file is read.
    return with_tied_names(state_dict, model)


def files_of(path):
    """The files of a checkpoint, and which names an index lists for each; None where there is no index."""
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name the file in it, or the .index.json of several")
    if first_bytes(path)[:1] != b"{":
        return {path: None}
    listed = {}
    for name, shard in json.loads(path.read_bytes())["weight_map"].items():
        if Path(shard).is_absolute() or ".." in Path(shard).parts:
            raise ValueError(f"{path} lists {shard}, which leads out of its folder")
        file = path.parent / shard
        if file not in listed and not file.is_file():
            raise ValueError(f"{path} lists {file}, which is no file")
        listed.setdefault(file, set()).add(name)
    return dict(sorted(listed.items()))


def is_safetensors(file):
    """Return True by the file's contents, whatever its name is: behind eight bytes its header begins."""
    return first_bytes(file)[8:] == b"{"


def first_bytes(file):
    with Path(file).open("rb") as opened:
        return opened.read(9)


def only_listed(file, found, listed):
    """Return what an index lists for a file: what else is in it would win over what another file is listed for."""
    if listed is None:
        return found
    if missing := listed - found.keys():
        raise ValueError(f"{file} lacks {sorted(missing)}, which its index lists for it")
    return {name: value for name, value in found.items() if name in listed}


def read_safetensors(file, location, mmap, listed):
    """The tensors of a file of safetensors, each in a storage of its own; those that are listed, if any are."""
    mapped = torch.UntypedStorage.from_file(str(file), False, file.stat().st_size) if mmap else None
    found = {}
    with file.open("rb") as opened:
        for name, dtype, shape, start, end in safetensors_entries(opened):
            if listed is not None and name not in listed:
                continue
            if mmap:
                tensor = torch.empty(0, dtype=dtype).set_(mapped[start:end], 0, shape)
            else:
                tensor = torch.empty(shape, dtype=dtype)
                read_into(tensor.data_ptr(), opened, start, end)
            found[name] = tensor.to(location)
            del tensor  # Before the next one is read.
    return found


def safetensors_entries(opened):
    """Return the name, dtype, shape, first byte and end of every tensor in an open file of safetensors."""
    size = os.fstat(opened.fileno()).st_size
    start = end = 8 + int.from_bytes(os.pread(opened.fileno(), 8, 0), "little")
    if start > size:
        raise ValueError(f"{opened.name} ends within its header")
    header = json.loads(os.pread(opened.fileno(), start - 8, 8))
    header.pop("__metadata__", None)
    entries = []
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape = SAFETENSORS_DTYPES.get(entry["dtype"]), entry["shape"]
        if dtype == torch.float4_e2m1fn_x2 and shape:  # An element of torch's is two values of a row.
            shape = [*shape[:-1], shape[-1] // 2]
        place, end = end, end + math.prod(shape) * (dtype.itemsize if dtype else 0)
        if dtype is None or entry["data_offsets"] != [place - start, end - start] or end > size:
            raise ValueError(f"{opened.name} has {name!r} with a dtype, shape or place that cannot be: {entry}")
        entries.append((name, dtype, shape, place, end))
    if end != size:
        raise ValueError(f"{opened.name} has {size:,} bytes, of which its tensors take the first {end:,}")
    return entries


def read_into(address, opened, start, end):
    """Read these bytes of a file to an address."""
    memory = memoryview((ctypes.c_char * (end - start)).from_address(address))
    while memory:  # A call reads 2 GiB at most.
        if not (count := os.preadv(opened.fileno(), [memory], start)):
            raise ValueError(f"{opened.name} was cut while it was read")
        memory, start = memory[count:], start + count
