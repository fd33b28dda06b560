"""Faults of pickles in sound archives."""

import os
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.selftest.faults.fault import Fault, Inject, edited, records_of, repacked, write_archive

NAME = "final_norm.scale"

# What an executed pickle would leave beside the file.
EXECUTED = ".executed"


class _Call:
    """An object that is pickled as a call."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._call


class _Items:
    """An object that is pickled as an `OrderedDict` with these items, whatever their keys."""

    def __init__(self, items: list[tuple[str, Tensor]]) -> None:
        self._items = items

    def __reduce__(self) -> tuple[type, tuple[()], None, None, Iterator[tuple[str, Tensor]]]:
        return OrderedDict, (), None, None, iter(self._items)


def executes(path: Path) -> None:
    torch.save({NAME: _Call(os.mkdir, f"{path}{EXECUTED}")}, path)


def _pickled(content: bytes) -> Inject:
    return repacked(lambda records: records.update({"data.pkl": content}))


def _patched(change: Callable[[bytes], bytes]) -> Inject:
    return repacked(lambda records: records.update({"data.pkl": change(records["data.pkl"])}))


def _twice(*, good_last: bool) -> Inject:
    def inject(path: Path) -> None:
        state_dict: dict[str, Tensor] = torch.load(path, weights_only=True)
        other = (NAME, torch.zeros_like(state_dict[NAME]))
        items = list(state_dict.items())
        torch.save(_Items([other, *items] if good_last else [*items, other]), path)

    return inject


def _tensor_of(**changed: Any) -> Inject:
    """Rebuild one tensor with another argument than it was saved with."""

    def inject(path: Path) -> None:
        state_dict: dict[str, Any] = torch.load(path, weights_only=True)
        tensor = state_dict[NAME]
        given = {"offset": 0, "shape": tuple(tensor.shape), "stride": tensor.stride(), "metadata": None} | changed
        storage = tensor._typed_storage()  # noqa: SLF001 - as torch.save does
        hooks: dict[str, object] = OrderedDict()
        layout: list[object] = [given["offset"], given["shape"], given["stride"]]
        arguments = (storage, *layout, False, hooks, given["metadata"])
        state_dict[NAME] = _Call(torch._utils._rebuild_tensor_v2, *arguments)  # noqa: SLF001
        torch.save(state_dict, path)

    return inject


def _protocol_4(path: Path) -> None:
    torch.save(torch.load(path, weights_only=True), path, pickle_protocol=4)


def _two_lengths(path: Path) -> None:
    """State a smaller length of a storage in a second tensor."""
    records = records_of(path)
    records["data.pkl"] = records["data.pkl"].replace(b"X\x02\x00\x00\x0010", b"X\x02\x00\x00\x0011")
    write_archive(path, records.items())


PICKLE_FAULTS = {
    "pickle that executes": Fault(executes, r"uses (posix|nt)\.mkdir", "final_norm.scale"),
    "pickle that imports": Fault(_pickled(b"\x80\x02cthis\ns\n."), r"uses this\.s"),
    "pickle of a class": Fault(_pickled(pickle.dumps(Path("a"), protocol=2)), r"uses pathlib\.\w+"),
    "pickle that takes memory": Fault(
        _pickled(b"\x80\x02cbuiltins\nbytearray\nK\x08\x85R."), "has a pickle that is broken"
    ),
    "pickle of another protocol": Fault(_protocol_4, "has a pickle of protocol 4"),
    "pickle damaged": Fault(
        edited(lambda content: content.replace(b"\3\0\0\0cpu", b"\3\0\0\0cqu", 1)),
        r"has a damaged data\.pkl, whose CRC-32",
    ),
    "pickle cut off": Fault(_patched(lambda content: content[:-40]), "has a pickle that is broken"),
    "pickle of nothing": Fault(_pickled(b""), "has a pickle that is broken"),
    "pickle with more behind": Fault(_patched(lambda content: content + b"N."), "with more behind it"),
    "key twice, wrong first": Fault(_twice(good_last=True), "is there twice", NAME),
    "key twice, wrong last": Fault(_twice(good_last=False), "is there twice", NAME, silent=True),
    "tensor beyond its storage": Fault(_tensor_of(offset=8), "reaches beyond the end of its storage"),
    "strides beyond its storage": Fault(_tensor_of(stride=(2,)), "reaches beyond the end of its storage"),
    "negative strides": Fault(_tensor_of(stride=(-1,)), "has a pickle that is broken"),
    "tensor to be negated": Fault(_tensor_of(metadata={"neg": True}), "to be negated", "final_norm.scale", silent=True),
    "storage of two lengths": Fault(
        _two_lengths,
        "do not agree on the dtype or length|has a record|no tensor uses",
        "trf_blocks.0.ff.layers.0.weight",
    ),
}
