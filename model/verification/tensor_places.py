"""Addresses of a model's tensors, stated by its process without functions that a loader can patch.

The loader of a model runs in the same process, and may replace `torch.equal`, `hashlib.sha256` or a method of
`nn.Module`. So this code calls only C functions that were looked up when this module was imported, and another process
reads and compares the memory. A loader that forges this statement can still name the places of a correct copy.
"""

import _thread
import builtins
import ctypes
import gc
import hashlib
import os
import select
import signal
import sys
from ast import literal_eval
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from model.examine.safetensors_file import contiguous_stride

# The beginning of a statement, which no pickle has.
PREFIX = b"places:"

# Answers to a statement: the tensors are right, wrong, not judged, or the statement has to be made again.
RIGHT, WRONG, UNJUDGED, AGAIN = b"R", b"W", b"U", b"A"
ANSWER_BYTES = 5  # With the length that `Connection.send_bytes` writes before it.

# Reasons why a statement is unreliable: the loader left a trace function; a module has its tensors in another mapping
# than a plain dict, under a name that is no plain string, or under one that its class or an attribute hides.
TRACE, NO_DICT, NO_NAME, HIDDEN = "trace", "dict", "name", "hidden"

# Elements that are copied from a GPU at once.
COPIED = 2**20

# Time that a thread takes to begin.
BEGIN_SECONDS = 0.02

# Sends the places of a model's tensors, and of its outputs, and returns whether the reader finds all of them right.
Tell = Callable[[nn.Module, Sequence[Tensor]], bool]


@dataclass(frozen=True)
class TensorPlace:
    """A tensor in memory; `stride` in elements, `address` 0 if it has no memory that can be read.

    `held` is its role: "parameter", "buffer", "transient" (a non-persistent buffer) or "output". `hidden`: an attribute
    of its module has its name, and the module uses that. `sha256` is that of the values of a tensor on a GPU, in the
    order of its indices; "" elsewhere, where the reader of the memory computes it.
    """

    name: str
    held: str
    device: str
    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    address: int
    item_bytes: int
    hidden: bool
    sha256: str = ""

    @property
    def count(self) -> int:
        """The number of its elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def span_bytes(self) -> int:
        """Bytes from its first element to its last, both included."""
        if not self.count:
            return 0
        steps = zip(self.shape, self.stride, strict=True)
        return (1 + sum((size - 1) * stride for size, stride in steps)) * self.item_bytes

    @property
    def is_contiguous(self) -> bool:
        """Return whether its values are contiguous."""
        return self.dense_stride == effective_stride(self.shape, contiguous_stride(self.shape))

    @property
    def dense_stride(self) -> tuple[int, ...]:
        """Its effective strides."""
        return effective_stride(self.shape, self.stride)


def effective_stride(shape: Sequence[int], stride: Sequence[int]) -> tuple[int, ...]:
    """Return strides with 0 for dimensions that have one element, or where there are no elements at all."""
    empty = 0 in shape
    return tuple(0 if empty or size == 1 else step for size, step in zip(shape, stride, strict=True))


@dataclass(frozen=True)
class PlacesStatement:
    """A statement of a teller on the places of tensors.

    `odd` has the modules for which it is unreliable, and why: `TRACE`, `NO_DICT`, `NO_NAME` or `HIDDEN`. `running` is
    the number of Python threads that were started since the teller was made, and of timers.
    """

    places: tuple[TensorPlace, ...]
    odd: tuple[tuple[str, str], ...]
    running: int

    @classmethod
    def of(cls, message: bytes) -> "PlacesStatement":
        """Parse a message, see `is_statement`. Raises `ValueError` for one that is damaged."""
        try:
            places, odd, running = literal_eval(message[len(PREFIX) :].decode())
            return cls(tuple(TensorPlace(*place) for place in places), tuple(odd), running)
        except (SyntaxError, TypeError, MemoryError, RecursionError) as error:
            raise ValueError(f"is no statement: {type(error).__name__}") from None


def places_of(model: nn.Module) -> tuple[list[TensorPlace], list[tuple[str, str]]]:
    """Return the places of a model's tensors in this process, and odd modules, see `PlacesStatement`."""
    places, odd = list[Any](), list[tuple[str, str]]()
    _walk(model, "", places, odd, [])
    return [TensorPlace(*place) for place in places], odd


def is_statement(message: bytes) -> bool:
    return message.startswith(PREFIX)


# The functions that those below call: in C, so that none can be replaced, and without audit events, which run hooks.
_BASE: Any = torch._C.TensorBase  # noqa: SLF001 - of `torch.Tensor` methods can be replaced
_WITHOUT_OVERRIDES: Any = torch._C.DisableTorchFunction  # noqa: SLF001 - the type behind torch's own guards
_INSTANCE_DICT: Any = nn.Module.__dict__["__dict__"].__get__
_GET, _ITEMS, _DICTS = dict.get, dict.items, (dict, OrderedDict)
_CLASSES, _ATTRIBUTES = type.__dict__["__mro__"].__get__, type.__dict__["__dict__"].__get__
_DEVICE, _DTYPE = (_BASE.__dict__[name].__get__ for name in ("device", "dtype"))
_SIZE, _STRIDE, _ADDRESS, _ITEM_BYTES, _IS_CONJ, _IS_NEG = (
    _BASE.__dict__[name] for name in ("size", "stride", "data_ptr", "element_size", "is_conj", "is_neg")
)
# For tensors on a GPU, whose memory no other process reads.
_IS_CUDA, _COUNT = _BASE.__dict__["is_cuda"].__get__, _BASE.__dict__["numel"]
_DETACH, _CPU, _CONTIGUOUS, _IS_CONTIGUOUS, _AS_STRIDED, _NARROW = (
    _BASE.__dict__[name] for name in ("detach", "cpu", "contiguous", "is_contiguous", "as_strided", "narrow")
)
_WITHOUT_DISPATCH: Any = torch._C._DisableTorchDispatch  # noqa: SLF001 - the type behind torch's own guards
_SHA256, _CHAR = hashlib.sha256, ctypes.c_char
_READ, _WRITE, _TIMER, _WAIT = os.read, os.write, signal.getitimer, select.select
_RUNNING: Any = _thread._count  # noqa: SLF001 - its only name
_IS_COLLECTING, _COLLECT, _COLLECT_NOT = gc.isenabled, gc.enable, gc.disable
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_GET_TRACE, _SET_TRACE, _GET_PROFILE, _SET_PROFILE = sys.gettrace, sys.settrace, sys.getprofile, sys.setprofile


def _tell(descriptor: int, before: Any, model: nn.Module, outputs: Sequence[Tensor]) -> bool:
    while (answer := _told(descriptor, before, model, outputs)).endswith(AGAIN):
        pass
    return answer.endswith(RIGHT)


def _told(descriptor: int, before: Any, model: nn.Module, outputs: Sequence[Tensor]) -> bytes:
    """Send one statement, and return the answer; empty if the reader is gone."""
    threads, traces = before
    trace, profile, collects = _GET_TRACE(), _GET_PROFILE(), _IS_COLLECTING()
    # The loader's functions may run when garbage is collected, and at every step of this one.
    _COLLECT_NOT()
    if trace is not None:
        _SET_TRACE(None)
    if profile is not None:
        _SET_PROFILE(None)
    try:
        places: list[Any] = []
        odd: list[tuple[str, str]] = []
        if (trace, profile) != traces:
            odd.append(("", TRACE))
        _walk(model, "", places, odd, [])
        on_host = _on_host(outputs)
        for number, output in enumerate(on_host):
            places.append(_place(f"output {number}", "output", output, False))
        # A thread that has not begun yet is not counted.
        _WAIT((), (), (), BEGIN_SECONDS)
        running = max(0, _RUNNING() - threads) + len([which for which in _TIMERS if _TIMER(which)[0]])
        message = PREFIX + repr((places, odd, running)).encode()
        return _answer(descriptor, message)
    finally:
        if profile is not None:
            _SET_PROFILE(profile)
        if trace is not None:
            _SET_TRACE(trace)
        if collects:
            _COLLECT()


def _answer(descriptor: int, message: bytes) -> bytes:
    """Send a message as `Connection.send_bytes` does, and return the answer."""
    message = len(message).to_bytes(4, "big") + message
    while message:
        message = message[_WRITE(descriptor, message) :]
    answer = b""
    while len(answer) < ANSWER_BYTES:
        part = _READ(descriptor, ANSWER_BYTES - len(answer))
        if not part:
            return b""
        answer += part
    return answer


def _walk(
    module: nn.Module, prefix: str, places: list[Any], odd: list[tuple[str, str]], above: list[nn.Module]
) -> None:
    """Collect the places below a module, by all of their names, and the modules that are odd."""
    kept = _INSTANCE_DICT(module)
    within = [_GET(kept, name) for name in ("_parameters", "_buffers", "_modules")]
    if type(kept) is not dict or [one for one in within if type(one) not in _DICTS]:
        odd.append((prefix[:-1], NO_DICT))
        return
    parameters, buffers, modules = (one or {} for one in within)
    if [name for held in (kept, parameters, buffers, modules) for name in held if type(name) is not str]:
        odd.append((prefix[:-1], NO_NAME))
        return
    attributes = [kept, *[_ATTRIBUTES(one) for one in _CLASSES(type(module))]]
    transient = _GET(kept, "_non_persistent_buffers_set") or ()
    for held, tensors in (("parameter", parameters), ("buffer", buffers)):
        for name, tensor in _ITEMS(tensors):
            if isinstance(tensor, _BASE):
                how = "transient" if held == "buffer" and name in transient else held
                hidden = [one for one in attributes if name in one] != []
                places.append(_place("".join((prefix, name)), how, tensor, hidden))
    for name, child in _ITEMS(modules):
        if child is not None and not [one for one in above if one is child]:
            if [one for one in attributes if name in one]:
                odd.append(("".join((prefix, name)), HIDDEN))
            _walk(child, "".join((prefix, name, ".")), places, odd, [*above, module])


def _place(name: str, held: str, tensor: Tensor, hidden: bool) -> tuple[Any, ...]:
    with _WITHOUT_OVERRIDES():
        device, dtype, shape, item_bytes = (
            repr(_DEVICE(tensor)), repr(_DTYPE(tensor)), tuple(_SIZE(tensor)), _ITEM_BYTES(tensor),
        )  # fmt: skip
        address, stride, digest = 0, tuple([0 for _ in shape]), ""
        # Neither sparse tensors nor wrappers have an address, and bits that are to be negated are no values.
        try:
            stride = tuple(_STRIDE(tensor))
            if not _IS_CONJ(tensor) and not _IS_NEG(tensor):
                address = _ADDRESS(tensor)
                digest = _sha256(tensor) if _IS_CUDA(tensor) else ""
        except RuntimeError:
            pass
    return name, held, device, dtype, shape, stride, address, item_bytes, hidden, digest


def _sha256(tensor: Tensor) -> str:
    """Return the digest of a tensor on a GPU; a contiguous one is copied to the host in parts."""
    with _WITHOUT_DISPATCH():
        detached = _DETACH(tensor)
        dense = detached if _IS_CONTIGUOUS(detached) else _CONTIGUOUS(_CPU(detached))
        digest, count, item_bytes = _SHA256(), _COUNT(dense), _ITEM_BYTES(dense)
        # Not `view`: a tensor of one element is contiguous whatever its stride, and keeps it.
        flat = _AS_STRIDED(dense, (count,), (1,))
        for start in range(0, count, COPIED):
            part = _CPU(_NARROW(flat, 0, start, min(COPIED, count - start)))
            digest.update((_CHAR * (_COUNT(part) * item_bytes)).from_address(_ADDRESS(part)))
        return digest.hexdigest()


def _on_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    with _WITHOUT_OVERRIDES(), _WITHOUT_DISPATCH():
        return [_CPU(_DETACH(tensor)) for tensor in tensors]


# The names of this module, and the builtins, as they are when it is imported.
_WORLD = {**globals(), "__builtins__": dict(vars(builtins))}
_CODES = {one.__name__: one.__code__ for one in (_tell, _told, _answer, _walk, _place, _sha256, _on_host)}


def teller(
    descriptor: int, *, world: Any = _WORLD, codes: Any = _CODES, function: Any = FunctionType, bound: Any = partial
) -> Tell:
    """Return a function that sends the places of a model's tensors through a connection; make it before a load.

    It is a copy of functions with globals of their own, which no name in any module leads to.
    """
    own = {**world, "__builtins__": {**world["__builtins__"]}}
    for name, code in codes.items():
        own[name] = function(code, own)
    before = own["_RUNNING"](), (own["_GET_TRACE"](), own["_GET_PROFILE"]())
    return bound(own["_tell"], descriptor, before)
