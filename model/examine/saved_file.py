"""Reader of a `torch.save` file, which describes its content without loading it."""

import os
import stat
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from model.examine.archive import ZipRecord, check_crc, read_archive, read_record
from model.examine.limits import ReadAllowance
from model.examine.pickle_objects import SavedTensor
from model.examine.pickle_reader import Pickled, read_pickle
from model.examine.zip_directory import MalformedFile

# Memory in bytes for the entry of a record in the directory, here and in torch.
RECORD = 640


def read_saved(file: Path, contents: bool, *, follow: bool) -> object:
    """Return the content of a file of `torch.save`, tensors as descriptions; `follow`: it may be a symbolic link.

    With `contents` every record is compared with its CRC-32. Raises `MalformedFile` or `OSError`.
    """
    with open_regular(file, follow=follow) as opened:
        descriptor = opened.fileno()
        room = ReadAllowance.of(os.fstat(descriptor).st_size)
        records = read_archive(descriptor)
        room.take(RECORD * len(records))
        small = {name: read_record(descriptor, record, name) for name, record in records.items() if _is_small(name)}
        if (order := small.get("byteorder", b"little")) != sys.byteorder.encode():
            raise MalformedFile(
                f"has the byte order {order.decode(errors='replace')}, where this machine has {sys.byteorder}"
            )
        pickled = read_pickle(small["data.pkl"], room)
        _check_storages(pickled, records)
        _check_torch(opened, pickled.value, records)
        if contents:
            for name, record in records.items():
                if not check_crc(descriptor, record):
                    raise MalformedFile(f"has a damaged record {name}: its CRC-32 is not the one that was written")
    return pickled.value


@contextmanager
def open_regular(file: Path, *, follow: bool) -> Iterator[IO[bytes]]:
    """Open a regular file; raise for anything else, without waiting for a writer."""
    mode = (file.stat() if follow else file.lstat()).st_mode
    if not stat.S_ISREG(mode):
        raise MalformedFile(f"is {kind_of(mode)}, not a file")
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    with os.fdopen(os.open(file, flags), "rb", buffering=0) as opened:
        # It may have been replaced since it was looked at.
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise MalformedFile("is no longer a file")
        yield opened


def kind_of(mode: int) -> str:
    kinds = {
        stat.S_IFREG: "a file",
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def _is_small(name: str) -> bool:
    return not name.startswith(("data/", ".data/"))


def _check_storages(pickled: Pickled, records: Mapping[str, ZipRecord]) -> None:
    """Raise `MalformedFile` unless every storage has a record of its length, and every tensor is within its storage."""
    storages = {f"data/{key}": storage for key, storage in pickled.storages.items()}
    for name in records:
        if name.startswith("data/") and name not in storages:
            raise MalformedFile(f"has a record {name} that no tensor uses")
    for name, storage in storages.items():
        if name not in records:
            raise MalformedFile(f"lacks the record {name} that a tensor uses")
        if records[name].bytes != storage.bytes:
            raise MalformedFile(
                f"has a record {name} of {records[name].bytes:,} bytes, where {storage.bytes:,} are needed"
            )
    for tensor in pickled.tensors:
        reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride, strict=True)) + 1
        if all(tensor.shape) and (tensor.offset + reach) * tensor.dtype.itemsize > tensor.storage.bytes:
            raise MalformedFile(f"has a tensor that reaches beyond the end of its storage {_record_name(tensor)}")


def _check_torch(opened: IO[bytes], saved: object, records: Mapping[str, ZipRecord]) -> None:
    """Raise `MalformedFile` unless torch reads the same tensors at the same places. The file is harmless by now."""
    if not hasattr(torch.serialization, "_is_meta_location"):
        return  # Torch 2.10 reads every value, even for meta.
    values = saved if isinstance(saved, dict) else {"": saved}
    tensors = {key: one for key, one in values.items() if isinstance(key, str) and isinstance(one, SavedTensor)}
    opened.seek(0)
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns of protocol 3, which was checked.
            loaded = torch.load(opened, map_location="meta", weights_only=True)
    except NotImplementedError:
        # Quantised tensors cannot be on meta. Beside a state dict they can be anything.
        if tensors:
            raise MalformedFile("holds quantised tensors beside others: save the others by themselves") from None
        return
    except Exception as error:  # noqa: BLE001 - torch raises errors of many types
        raise MalformedFile(
            f"cannot be loaded by torch {torch.__version__}: {str(error).partition(chr(10))[0]}"
        ) from None
    for key, tensor in tensors.items():
        other = loaded[key] if isinstance(saved, dict) else loaded
        if _place_in_torch(other) != (*dtype_shape_stride(tensor), records[_record_name(tensor)].start):
            raise MalformedFile(
                "is read differently by torch, since its records are in another order than torch saves: save it again"
            )


def _place_in_torch(tensor: Tensor) -> tuple[object, ...]:
    return (*dtype_shape_stride(tensor), tensor.untyped_storage()._checkpoint_offset)  # noqa: SLF001


def _record_name(tensor: SavedTensor) -> str:
    return f"data/{tensor.storage.key}"


def dtype_shape_stride(tensor: Tensor | SavedTensor) -> tuple[torch.dtype, tuple[int, ...], tuple[int, ...]]:
    """Return the dtype, the shape and the strides in elements."""
    stride = tensor.stride() if isinstance(tensor, Tensor) else tensor.stride
    return tensor.dtype, tuple(tensor.shape), stride
