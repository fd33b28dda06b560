"""What the pickle of a checkpoint says, read without running it.

A pickle is a program that may import and call anything. Of a checkpoint's, `torch.save` writes no more than is read
here: plain values, and calls that make tensors, which become descriptions. Nothing is imported, nothing is called,
and no memory is taken that is not a small multiple of the pickle's own bytes.
"""

import pickletools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.serialization import DEFAULT_PROTOCOL

from model.zip_directory import Unsound, UnsoundKey


@dataclass(frozen=True)
class Storage:
    """The record `data/<key>` of a checkpoint, as tensors use it."""

    key: str
    dtype: torch.dtype
    bytes: int


@dataclass(frozen=True)
class SavedTensor:
    """A tensor without its values; `offset` and `stride` in elements."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class _Name:
    """Something that the pickle imports."""

    path: str


_STORAGES = {f"torch.{name}": dtype for dtype, name in torch.storage._dtype_to_storage_type_map().items()} | {  # noqa: SLF001
    "torch.storage.UntypedStorage": torch.uint8
}
_DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}


class _Dict(dict[str | int, Any]):
    """A dict that takes every key once."""

    def add(self, keys: list[Any], values: list[Any]) -> None:
        for key, value in zip(keys, values, strict=True):
            if not isinstance(key, str | int):
                raise Unsound(f"has a pickle with a key that is no string but a {type(key).__name__}")
            if key in self:
                raise DuplicateKey(str(key))
            self[key] = value


class DuplicateKey(UnsoundKey):
    """A key that a dict is given twice."""

    def __init__(self, key: str) -> None:
        super().__init__(key, "is there twice, and readers differ in which of the two they take")


def read_pickle(content: bytes) -> object:
    """The value that is pickled: containers, plain values, and a `SavedTensor` for every tensor.

    Raises `Unsound` for a pickle that does anything else than make these, and names what it wants to import.
    """
    machine = _Machine()
    end = 0
    try:
        with warnings.catch_warnings(action="error"):  # Of odd names in a pickle Python's tools only warn.
            for code, argument, place in pickletools.genops(content):
                end = place or 0
                _step(code.name)(machine, argument)
    except UnsoundKey:
        raise
    except Unsound as error:
        if (key := machine.key) is None:
            raise
        raise UnsoundKey(key, str(error)) from None
    except (ValueError, LookupError, TypeError, AttributeError, Warning) as error:
        raise Unsound(f"has a pickle that is broken around its byte {end:,}") from error
    if end + 1 != len(content) or machine.stack or machine.outer:
        raise Unsound(f"has a pickle that ends at its byte {end + 1:,}, with more behind it")
    return machine.result


@dataclass
class _Machine:
    """The stack of values, and those that wait below its marks, as the instructions of a pickle use them."""

    stack: list[Any] = field(default_factory=list)
    outer: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    storages: dict[str, Storage] = field(default_factory=dict)
    result: object = None

    @property
    def key(self) -> str | None:
        """The key of the innermost dict whose value is being made; None where none is."""
        frames = [*self.outer, self.stack]
        for frame, items in zip(reversed(frames[:-1]), reversed(frames[1:]), strict=True):
            if frame and type(frame[-1]) is _Dict and items:
                # Keys and values in turn; of the last value there may be nothing yet, or its beginning.
                return str(items[(len(items) - 1) // 2 * 2])
        # A dict with one key is filled without a mark.
        place = next((place for place, value in enumerate(frames[0]) if type(value) is _Dict), len(frames[0]))
        return str(frames[0][place + 1]) if place + 1 < len(frames[0]) else None

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError(count)
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def pop_to_mark(self) -> list[Any]:
        taken, self.stack = self.stack, self.outer.pop()
        return taken

    def mark(self) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not _Dict:
            raise TypeError(target)
        target.add(items[::2], items[1::2])

    def append_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise TypeError(target)
        target.extend(items)

    def call(self) -> None:
        function, arguments = self.pop(2)
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise TypeError(function)
        if function.path not in _CALLS:
            raise Unsound(f"has a pickle that calls {function.path}: torch.save writes no such call")
        self.push(_CALLS[function.path](*arguments))

    def set_state(self) -> None:
        """Attributes of an `OrderedDict`: torch keeps the versions of modules there."""
        [state] = self.pop(1)
        if type(self.stack[-1]) is not _Dict or type(state) is not _Dict or set(state) - {"_metadata"}:
            raise TypeError(state)

    def name(self, argument: str) -> None:
        path = argument.replace(" ", ".", 1)
        if path not in _CALLS and path not in _STORAGES and path not in _DTYPES:
            raise Unsound(f"has a pickle that imports {path}: a checkpoint needs nothing but tensors")
        self.push(_Name(path))

    def load_storage(self) -> None:
        [(kind, storage_type, key, location, count)] = self.pop(1)
        if kind != "storage" or not isinstance(key, str) or not isinstance(location, str) or not _counts([count]):
            raise TypeError(kind)
        dtype = _STORAGES[storage_type.path]
        storage = Storage(key, dtype, count * dtype.itemsize)
        if self.storages.setdefault(key, storage) != storage:
            raise Unsound(f"has tensors that do not agree on the dtype or length of their common storage {key}")
        self.push(storage)


def _counts(values: Any) -> bool:
    return all(type(value) is int and value >= 0 for value in values)


def _ordered_dict() -> _Dict:
    return _Dict()


def _typed_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> SavedTensor:
    """The arguments of `torch._utils._rebuild_tensor_v2`."""
    grad, hooks, *metadata = rest
    return _tensor(storage, offset, shape, stride, grad, hooks, _Name(str(storage.dtype)), *metadata)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> SavedTensor:
    """The arguments of `torch._utils._rebuild_tensor_v3`."""
    grad, hooks, dtype, *metadata = rest
    if not isinstance(storage, Storage) or type(shape) is not tuple or type(stride) is not tuple:
        raise TypeError(storage)
    if not _counts((offset, *shape, *stride)) or len(shape) != len(stride) or type(grad) is not bool:
        raise TypeError(shape)
    if hooks or any(metadata):
        raise Unsound("has a tensor with hooks, or with values that are to be negated or conjugated when read")
    return SavedTensor(storage, _DTYPES[dtype.path], offset, shape, stride)


def _parameter(data: Any, grad: Any, hooks: Any) -> SavedTensor:
    if not isinstance(data, SavedTensor) or type(grad) is not bool or hooks:
        raise TypeError(data)
    return data


def _bytes(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError(encoding)
    return text.encode("latin1")


_CALLS: dict[str, Callable[..., object]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor_v2": _typed_tensor,
    "torch._utils._rebuild_tensor_v3": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "_codecs.encode": _bytes,
}


def _step(name: str) -> Callable[[_Machine, Any], object]:
    if name not in _STEPS:
        raise Unsound(f"has a pickle with the instruction {name}, which torch.save does not write")
    return _STEPS[name]


def _protocol(_: _Machine, version: int) -> None:
    if version != DEFAULT_PROTOCOL:
        raise Unsound(f"has a pickle of protocol {version}, where torch.save writes {DEFAULT_PROTOCOL}")


def _stop(machine: _Machine, _: object) -> None:
    [machine.result] = machine.pop(1)


_STEPS: dict[str, Callable[[_Machine, Any], object]] = {
    "PROTO": _protocol,
    "STOP": _stop,
    "GLOBAL": _Machine.name,
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.set_state(),
    "BINPERSID": lambda machine, _: machine.load_storage(),
    "MARK": lambda machine, _: machine.mark(),
    "SETITEM": lambda machine, _: machine.set_items(machine.pop(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "APPEND": lambda machine, _: machine.append_items(machine.pop(1)),
    "APPENDS": lambda machine, _: machine.append_items(machine.pop_to_mark()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.pop(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.pop(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.pop(3))),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push(_Dict()),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"), _Machine.push),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda machine, place: machine.push(machine.memo[place])),
    **dict.fromkeys(
        ("BINPUT", "LONG_BINPUT"), lambda machine, place: machine.memo.__setitem__(place, machine.stack[-1])
    ),
}
