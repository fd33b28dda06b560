"""Descriptions of the objects in a checkpoint's pickle: tensors without values, and other objects.

The pickle may contain the calls that `torch.load(weights_only=True)` allows and `torch.save` writes. This module makes
none of them. It refuses a call that would take more memory in torch than its arguments do.
"""

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from model.examine.limits import MOST_DIMENSIONS, are_counts
from model.examine.zip_directory import MalformedFile, UnsoundKey
from model.printable import printable

# Parts of a key, nested tuples included: its hash takes as many steps.
MOST_KEY_PARTS = 100
# Keys of a dict, or items of a set, with the same hash, other than strings: each is compared with all before it.
MOST_OF_A_HASH = 100


@dataclass(frozen=True, slots=True)
class SavedStorage:
    """The record `data/<key>` of a checkpoint, as tensors use it."""

    key: str
    dtype: torch.dtype
    bytes: int


@dataclass(frozen=True, slots=True)
class SavedTensor:
    """A tensor without its values; `offset` and `stride` in elements."""

    storage: SavedStorage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class SavedObject:
    """An object that is neither a plain tensor nor a plain value; only its kind is kept.

    `tensor` has its values if it is a tensor of another kind.
    """

    kind: str
    tensor: SavedTensor | None = None

    @property
    def is_tensor(self) -> bool:
        """Return whether it has values that belong to a state dict."""
        return self.tensor is not None or "tensor" in self.kind


@dataclass(frozen=True, slots=True)
class GlobalName:
    """A name that a pickle imports."""

    path: str


class DuplicateKey(UnsoundKey):
    """A key that a dict is given twice."""

    def __init__(self, key: str) -> None:
        super().__init__(key, "is there twice, and readers differ in which of the two they take")


class Dict(dict[Any, Any]):
    """A dict that refuses a second value for a key."""

    # The number of keys for each hash, of keys whose hash can be chosen.
    __slots__ = ("_hashes",)

    def __init__(self) -> None:
        self._hashes: Counter[int] | None = None

    def add(self, keys: list[Any], values: list[Any]) -> None:
        for key, value in zip(keys, values, strict=True):
            if type(key) is not str:
                _require_hashable(key)
                self._hashes = _counted(key, self._hashes)
            if key in self:
                raise DuplicateKey(printable(key))
            self[key] = value


def _require_hashable(key: Any) -> None:
    """Raise `MalformedFile` for a value that is no key, and for nested tuples whose hash would take long."""
    waiting, count = [key], 0
    while waiting:
        one = waiting.pop()
        count += len(one) if isinstance(one, tuple) else 0
        if isinstance(one, list | dict) or count > MOST_KEY_PARTS:
            raise MalformedFile(f"has a pickle with a key that is no string but a {type(one).__name__.lower()}")
        waiting += one if isinstance(one, tuple) else ()


def _counted(key: Any, hashes: Counter[int] | None) -> Counter[int] | None:
    """Count the hash of a key. Raises `MalformedFile` if too many are equal: comparing the keys takes time."""
    # The hashes of these differ, or cannot be chosen.
    if key is None or isinstance(key, bytes) or (isinstance(key, int) and abs(key) <= sys.maxsize >> 3):
        return hashes
    hashes = Counter() if hashes is None else hashes
    hashes[hash(key)] += 1
    if hashes[hash(key)] > MOST_OF_A_HASH:
        raise MalformedFile(f"has a pickle with more than {MOST_OF_A_HASH} keys of the same hash")
    return hashes


STORAGES = {f"torch.{name}": dtype for dtype, name in torch.storage._dtype_to_storage_type_map().items()} | {  # noqa: SLF001
    "torch.storage.UntypedStorage": torch.uint8
}
_DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
_TENSOR_TYPES: tuple[type, ...] = (torch.Tensor, torch.nn.Parameter, *torch._tensor_classes)  # noqa: SLF001
_CLASSES = {f"{one.__module__}.{one.__name__}" for one in _TENSOR_TYPES}
_SCHEMES = {str(value) for value in vars(torch).values() if isinstance(value, torch.qscheme)}


def _typed_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> object:
    """Describe a call of `torch._utils._rebuild_tensor_v2`."""
    grad, hooks, *metadata = rest
    return _tensor(storage, offset, shape, stride, grad, hooks, GlobalName(str(storage.dtype)), *metadata)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> object:
    """Describe a call of `torch._utils._rebuild_tensor_v3`."""
    grad, hooks, dtype, *metadata = rest
    if not isinstance(storage, SavedStorage) or type(shape) is not tuple or type(stride) is not tuple:
        raise TypeError(storage)
    if len(shape) > MOST_DIMENSIONS:
        raise MalformedFile(f"has a tensor of {len(shape):,} dimensions, where torch takes {MOST_DIMENSIONS}")
    if not are_counts((offset, *shape, *stride)) or len(shape) != len(stride) or type(grad) is not bool:
        raise TypeError(shape)
    if hooks:
        raise MalformedFile("has a tensor with hooks")
    tensor = SavedTensor(storage, _DTYPES[dtype.path], offset, shape, stride)
    if any(metadata):
        return SavedObject("a tensor that is to be negated or conjugated when it is read", tensor)
    return tensor


def _parameter(data: Any, grad: Any, hooks: Any, attributes: Any = None) -> object:
    """Describe a call of `torch._utils._rebuild_parameter`, or of `_rebuild_parameter_with_state`."""
    if not isinstance(data, SavedTensor | SavedObject) or type(grad) is not bool or hooks:
        raise TypeError(data)
    _require_own(attributes)
    return data


def _typed(rebuild: Any, kind: Any, arguments: Any, attributes: Any) -> object:
    """Describe a call of `torch._tensor._rebuild_from_type_v2`: a tensor with attributes."""
    if not isinstance(kind, GlobalName) or kind not in {
        GlobalName("torch.Tensor"),
        GlobalName("torch.nn.parameter.Parameter"),
    }:
        raise TypeError(kind)
    _require_own(attributes)
    return _TENSORS[rebuild.path](*arguments)


def _require_own(attributes: Any) -> None:
    """Raise `MalformedFile` for attributes with names of tensor attributes, which could change its values."""
    for some in attributes if isinstance(attributes, tuple) else (attributes,):
        if some is not None and type(some) is not Dict:
            raise TypeError(some)
        for name in some or ():
            if not isinstance(name, str) or hasattr(torch.nn.Parameter, name):
                raise MalformedFile(f"has a tensor with another {name} than that of its values")


def _quantised(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> object:
    """Describe a call of `torch._utils._rebuild_qtensor`."""
    _, grad, hooks = rest
    tensor = _typed_tensor(storage, offset, shape, stride, grad, hooks)
    return SavedObject("a quantised tensor", tensor if isinstance(tensor, SavedTensor) else None)


def _bytes(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError(encoding)
    return text.encode("latin1")


def _ordered_dict() -> Dict:
    return Dict()


def _size(sizes: Any) -> tuple[int, ...]:
    if type(sizes) is not tuple or not are_counts(sizes):
        raise TypeError(sizes)
    return sizes


def _set(items: Any) -> SavedObject:
    if type(items) is not list:
        raise TypeError(items)
    hashes: Counter[int] | None = None
    for item in items:
        if type(item) is not str:
            _require_hashable(item)
            hashes = _counted(item, hashes)
    return SavedObject("a set")


def _of(kind: str, *types: type, least: int | None = None) -> Callable[..., SavedObject]:
    """Return a function that describes an object; it takes arguments of these types, at least the first `least`."""

    def make(*arguments: Any) -> SavedObject:
        count = len(arguments)
        if count < (len(types) if least is None else least) or tuple(map(type, arguments)) != types[:count]:
            raise TypeError(arguments)
        return SavedObject(kind)

    return make


_TENSORS: dict[str, Callable[..., object]] = {
    "torch._utils._rebuild_tensor_v2": _typed_tensor,
    "torch._utils._rebuild_tensor_v3": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_qtensor": _quantised,
    "torch._utils._rebuild_sparse_tensor": _of("a sparse tensor", SavedObject, tuple),
    "torch._utils._rebuild_meta_tensor_no_storage": _of(
        "a tensor on meta, without values", GlobalName, tuple, tuple, bool
    ),
}
CALLS = _TENSORS | {
    "torch._tensor._rebuild_from_type_v2": _typed,
    "torch.Size": _size,
    "torch.device": _of("a torch.device", str, int, least=1),
    "torch.serialization._get_layout": _of("a torch.layout", str),
    "collections.OrderedDict": _ordered_dict,
    "collections.Counter": _of("a collections.Counter", Dict),
    "builtins.set": _set,
    "builtins.complex": _of("a complex number", float, float),
    "builtins.bytearray": _of("a bytearray", bytes, least=0),
    "_codecs.encode": _bytes,
}
NAMES = CALLS.keys() | STORAGES.keys() | _DTYPES.keys() | _CLASSES | _SCHEMES
