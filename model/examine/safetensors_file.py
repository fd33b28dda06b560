"""Reader and writer of .safetensors files: a JSON header with the offset of every tensor, then their bytes.

Layout: https://huggingface.co/docs/safetensors/index#format
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.examine.limits import END_OF_INT64, MOST_DIMENSIONS, ReadAllowance, are_counts, elements, json_bytes
from model.examine.mishaps import AGAIN, FIRST_BYTES, mishap
from model.examine.pickle_objects import DuplicateKey
from model.examine.saved_file import open_regular
from model.examine.zip_directory import MalformedFile, UnsoundKey, pread
from model.printable import printable

# Dtypes that the format and torch have in common, by the format's names.
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
_NAMES = {dtype: name for name, dtype in SAFETENSORS_DTYPES.items()}
# One element of this dtype is two values of a row in the format.
_OF_TWO = torch.float4_e2m1fn_x2

# The key of a header that is not a tensor.
_METADATA = "__metadata__"
_LENGTH_BYTES = 8
# The format's own limit.
MOST_HEADER_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class Extent:
    """A tensor of a file: its dtype, its shape, and its first byte and the one behind its last."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int


def file_parts(tensors: Mapping[str, Any]) -> list[bytes | Tensor]:
    """Return the parts of a file with these tensors. Raises `ValueError` for tensors that the format cannot hold."""
    _require_plain(tensors)
    # The widest first, as the format's own library does: so each starts at a multiple of its width.
    ordered = dict(sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize))
    header: dict[str, Any] = {_METADATA: {"format": "pt"}}
    end = 0
    for name, tensor in ordered.items():
        start, end = end, end + tensor.nbytes
        shape = _in_values(tensor.dtype, tuple(tensor.shape))
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)
    return [len(text).to_bytes(_LENGTH_BYTES, "little"), text, *ordered.values()]


def _require_plain(tensors: Mapping[str, Any]) -> None:
    owners: dict[object, str] = {}
    for name, tensor in tensors.items():
        if name == _METADATA:
            raise ValueError(f"{name} is no name for a tensor of a safetensors file: rename it")
        # A tensor that is made of others, such as a quantised one, has a dtype and no bytes of its own.
        is_one = isinstance(tensor, Tensor) and not hasattr(tensor, "__tensor_flatten__")
        if (kind := tensor.dtype if is_one else type(tensor)) not in _NAMES:
            raise ValueError(f"{name} is {kind}, which a safetensors file has no name for: use torch.save")
        if tensor.dtype == _OF_TWO and not tensor.dim():
            raise ValueError(f"{name} is a {_OF_TWO} without a dimension, which a safetensors file cannot say")
        if tensor.stride() != contiguous_stride(tensor.shape) or tensor.is_conj() or tensor.is_neg():
            raise ValueError(f"{name} is not contiguous, as all of a safetensors file are: use torch.save")
        if (owner := owners.setdefault(tensor.untyped_storage(), name)) != name:
            raise ValueError(f"{name} is in the memory of {owner}, which a safetensors file cannot say: use torch.save")


def contiguous_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a new tensor of the shape."""
    strides, step = list[int](), 1
    for size in reversed(shape):
        strides.append(step)
        step *= size or 1
    return (*reversed(strides),)


def _in_values(dtype: torch.dtype, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a tensor in the format."""
    return (*shape[:-1], 2 * shape[-1]) if dtype == _OF_TWO else shape


def read_header(file: Path) -> dict[str, Extent]:
    """Return every tensor of a file, in the order of their bytes.

    Raises `MalformedFile` unless the header accounts for every byte of the file, or `OSError`.
    """
    with open_regular(file, follow=True) as opened:
        descriptor = opened.fileno()
        size = os.fstat(descriptor).st_size
        first = pread(descriptor, min(size, FIRST_BYTES), 0)
        length = _header_bytes(first, size)
        header = read_json(pread(descriptor, length, _LENGTH_BYTES), "has a header that is", ReadAllowance.of(size))
    header.pop(_METADATA, None)
    end = _LENGTH_BYTES + length
    extents = [(name, _extent(name, entry, end)) for name, entry in header.items()]
    extents.sort(key=lambda item: (item[1].start, item[1].end))
    for name, extent in extents:
        if extent.start != end:
            raise UnsoundKey(name, f"starts at byte {extent.start:,} of the file, where {end:,} would be next")
        end = extent.end
    if end > size:
        raise MalformedFile(f"is cut off at {size:,} bytes, where its tensors end at {end:,}: {AGAIN}")
    if end < size:
        raise MalformedFile(f"has {size:,} bytes, where its tensors end at {end:,}: {AGAIN}")
    return dict(extents)


def _header_bytes(first: bytes, size: int) -> int:
    """Return the length of the header of a file of `size` bytes; raise, with what it is instead, for another file."""
    if text := mishap(first):
        raise MalformedFile(text)
    if first.startswith(b"PK\3\4"):
        raise MalformedFile("is a file of torch.save, where a .safetensors file is expected: rename it")
    length = int.from_bytes(first[:_LENGTH_BYTES], "little")
    if length > MOST_HEADER_BYTES:
        raise MalformedFile(f"is no .safetensors file, because its header would have {length:,} bytes: {AGAIN}")
    if _LENGTH_BYTES + length > size:
        raise MalformedFile(f"is cut off at {size:,} bytes, within a header of {length:,} bytes: {AGAIN}")
    return length


def _extent(name: str, entry: object, start: int) -> Extent:
    """Parse the entry of a tensor in the header; the bytes of all tensors start at `start`."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise UnsoundKey(name, "has something else in the header than its dtype, shape and data_offsets")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not isinstance(shape, list) or len(shape) > MOST_DIMENSIONS:
        raise UnsoundKey(name, f"has a shape that is no list of at most {MOST_DIMENSIONS} sizes")
    if not are_counts(shape) or not are_counts(offsets) or len(offsets) != len(("start", "end")):
        raise UnsoundKey(name, "has a shape, or offsets, that no tensor has")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in SAFETENSORS_DTYPES:
        raise UnsoundKey(name, f"has the dtype {printable(entry['dtype'])}, which torch does not have")
    dtype, (first, last) = SAFETENSORS_DTYPES[entry["dtype"]], offsets
    if dtype == _OF_TWO:
        if not shape or shape[-1] % 2:
            raise UnsoundKey(name, f"has the shape {shape}, in rows of which torch cannot hold values of 4 bits")
        shape = [*shape[:-1], shape[-1] // 2]
    if (count := elements(shape, END_OF_INT64 // dtype.itemsize)) is None:
        raise UnsoundKey(name, f"has the shape {shape}, of more bytes than any file has")
    if last - first != (needed := count * dtype.itemsize):
        raise UnsoundKey(name, f"has {last - first:,} bytes, where a {dtype} of the shape {shape} has {needed:,}")
    return Extent(dtype, tuple(shape), start + first, start + last)


def read_json(content: bytes, subject: str, room: ReadAllowance) -> dict[str, Any]:
    """Parse a JSON object; no object in it has a key twice. It takes no more memory than `room` has.

    Raises `MalformedFile`, in a sentence that begins with `subject`.
    """
    room.take(json_bytes(content))
    try:
        value = json.loads(content.decode(), object_pairs_hook=_once)
    except MalformedFile:
        raise
    except (ValueError, RecursionError):
        raise MalformedFile(f"{subject} no JSON: {AGAIN}") from None
    if not isinstance(value, dict):
        raise MalformedFile(f"{subject} no JSON object: {AGAIN}")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise DuplicateKey(key)
        found[key] = value
    return found


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a sound file, mapped: values are read when they are used."""
    mapped = torch.UntypedStorage.from_file(str(file), False, file.stat().st_size)
    tensors = {}
    for name, extent in read_header(file).items():
        stride = contiguous_stride(extent.shape)
        storage = mapped[extent.start : extent.end]
        tensors[name] = torch.empty(0, dtype=extent.dtype).set_(storage, 0, extent.shape, stride)
    return tensors
