"""One file of `torch.save`, read without loading it: what it holds, if it is sound."""

import os
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from model.archive import Record, check_crc, read_archive, read_record
from model.pickled import SavedTensor, read_pickle
from model.zip_directory import Unsound


def read_saved(file: Path, contents: bool, *, follow: bool) -> object:
    """What a file of `torch.save` holds, tensors as descriptions; `follow`: it may be a symbolic link.

    With `contents` every record has to have the CRC-32 that was written with it. Raises `Unsound` or `OSError`.
    """
    with open_regular(file, follow=follow) as opened:
        descriptor = opened.fileno()
        records = read_archive(descriptor)
        small = {name: read_record(descriptor, record, name) for name, record in records.items() if _is_small(name)}
        if (order := small.get("byteorder", b"little")) != sys.byteorder.encode():
            raise Unsound(
                f"has the byte order {order.decode(errors='replace')}, where this machine has {sys.byteorder}"
            )
        saved = read_pickle(small["data.pkl"])
        _check_storages(saved, records)
        _check_torch(opened, saved, records)
        if contents:
            for name, record in records.items():
                if not check_crc(descriptor, record):
                    raise Unsound(f"has a damaged record {name}: its CRC-32 is not the one that was written")
    return saved


@contextmanager
def open_regular(file: Path, *, follow: bool) -> Iterator[IO[bytes]]:
    """A regular file, open; raises instead of waiting for anything else, or for its writer."""
    mode = (file.stat() if follow else file.lstat()).st_mode
    if not stat.S_ISREG(mode):
        raise Unsound(f"is {kind_of(mode)} where a file is to be")
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    with os.fdopen(os.open(file, flags), "rb", buffering=0) as opened:
        # It may have been replaced since it was looked at.
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise Unsound("is no longer a file")
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


def _check_storages(saved: object, records: Mapping[str, Record]) -> None:
    """Every storage has a record of its own length, and every tensor lies within its storage."""
    tensors = list(_tensors(saved))
    storages = {_record_name(tensor): tensor.storage for tensor in tensors}
    for name in records:
        if name.startswith("data/") and name not in storages:
            raise Unsound(f"has a record {name} that no tensor uses")
    for name, storage in storages.items():
        if name not in records:
            raise Unsound(f"lacks the record {name} that a tensor uses")
        if records[name].bytes != storage.bytes:
            raise Unsound(f"has a record {name} of {records[name].bytes:,} bytes, where {storage.bytes:,} are needed")
    for tensor in tensors:
        reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride, strict=True)) + 1
        if all(tensor.shape) and (tensor.offset + reach) * tensor.dtype.itemsize > tensor.storage.bytes:
            raise Unsound(f"has a tensor that reaches beyond the end of its storage {_record_name(tensor)}")


def _tensors(value: object) -> Iterator[SavedTensor]:
    """Every tensor in a value; in a value that is in it many times, once."""
    seen, waiting = set(), [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, SavedTensor):
            yield one
        elif isinstance(one, dict | list | tuple) and id(one) not in seen:
            seen.add(id(one))
            waiting += one.values() if isinstance(one, dict) else one


def _check_torch(opened: IO[bytes], saved: object, records: Mapping[str, Record]) -> None:
    """Torch itself reads the same, and finds every storage where it is. What was read by now can do no harm."""
    if not hasattr(torch.serialization, "_is_meta_location"):
        return  # Torch 2.10 reads every value, even for meta.
    opened.seek(0)
    try:
        loaded = torch.load(opened, map_location="meta", weights_only=True)
    except Exception as error:  # noqa: BLE001 - of many types, which all mean this
        raise Unsound(f"cannot be loaded by torch {torch.__version__}: {str(error).partition(chr(10))[0]}") from None
    pairs = [(value, loaded[key]) for key, value in saved.items()] if isinstance(saved, dict) else [(saved, loaded)]
    for one, other in pairs:
        if isinstance(one, SavedTensor) and _seen_by_torch(other) != (*form(one), records[_record_name(one)].start):
            raise Unsound("is understood otherwise by torch: its records are not in the order that torch saves them in")


def _seen_by_torch(tensor: Tensor) -> tuple[object, ...]:
    return (*form(tensor), tensor.untyped_storage()._checkpoint_offset)  # noqa: SLF001


def _record_name(tensor: SavedTensor) -> str:
    return f"data/{tensor.storage.key}"


def form(tensor: Tensor | SavedTensor) -> tuple[torch.dtype, tuple[int, ...], tuple[int, ...]]:
    stride = tensor.stride() if isinstance(tensor, Tensor) else tensor.stride
    return tensor.dtype, tuple(tensor.shape), stride
