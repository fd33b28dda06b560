"""Reader of a checkpoint's pickle. It does not run the pickle.

A pickle is a program that can import and call anything. This reader accepts what `torch.load(weights_only=True)`
accepts: plain values, and calls that make tensors and a few objects. It returns descriptions of these objects. It
imports nothing, calls nothing, and takes no more memory than `ReadAllowance` allows.
"""

import pickletools
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from model.examine import pickle_costs
from model.examine.limits import ReadAllowance, are_counts
from model.examine.pickle_objects import (
    CALLS,
    NAMES,
    STORAGES,
    Dict,
    GlobalName,
    SavedObject,
    SavedStorage,
    SavedTensor,
)
from model.examine.zip_directory import MalformedFile, UnsoundKey
from model.printable import printable

# The last protocol all of whose instructions torch takes.
LAST_PROTOCOL = 3

ALONE = "if you trust the file, load it with torch.load(..., weights_only=False), and save the state dict by itself"


@dataclass(frozen=True)
class Pickled:
    """The value of a pickle, and all storages and tensors in it, whether they are part of `value` or not."""

    value: object
    storages: dict[str, SavedStorage]
    tensors: list[SavedTensor]


def read_pickle(content: bytes, room: ReadAllowance) -> Pickled:
    """Read a pickle as containers, plain values, a `SavedTensor` for every tensor, and a `SavedObject` for the rest.

    Raises `MalformedFile` for a pickle that makes anything else, with the name that it imports, and for one that takes
    more memory than `room` has, here and in torch.
    """
    machine = _Machine(room)
    end = 0
    try:
        with warnings.catch_warnings(action="error"):  # Python's tools only warn of odd names in a pickle.
            for code, argument, place in pickletools.genops(content):
                end = place or 0
                step = _step(code.name)
                room.take(pickle_costs.of_instruction(code.name, argument))
                step(machine, argument)
    except UnsoundKey:
        raise
    except MalformedFile as error:
        if (key := machine.key) is None:
            raise
        raise UnsoundKey(key, str(error)) from None
    except (ValueError, LookupError, TypeError, AttributeError, Warning) as error:
        raise MalformedFile(f"has a pickle that is broken around its byte {end:,}") from error
    if end + 1 != len(content) or machine.stack or machine.outer:
        raise MalformedFile(f"has a pickle that ends at its byte {end + 1:,}, with more behind it")
    return Pickled(machine.result, machine.storages, machine.tensors)


@dataclass
class _Machine:
    """The stack of a pickle's values, and the stacks below its marks."""

    room: ReadAllowance
    stack: list[Any] = field(default_factory=list)
    outer: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    storages: dict[str, SavedStorage] = field(default_factory=dict)
    tensors: list[SavedTensor] = field(default_factory=list)
    result: object = None

    @property
    def key(self) -> str | None:
        """The key of the innermost dict whose value is being made; None if there is none."""
        frames = [*self.outer, self.stack]
        for frame, items in zip(reversed(frames[:-1]), reversed(frames[1:]), strict=True):
            if frame and type(frame[-1]) is Dict and items:
                # Keys and values in turn; the last value may be missing or incomplete.
                return _key_text(items[(len(items) - 1) // 2 * 2])
        # A dict with one key is filled without a mark.
        place = next((place for place, value in enumerate(frames[0]) if type(value) is Dict), len(frames[0]))
        return _key_text(frames[0][place + 1]) if place + 1 < len(frames[0]) else None

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
        if type(target) is not Dict:
            raise TypeError(target)
        self.room.take(pickle_costs.ITEM * len(items) // 2 + (0 if target else pickle_costs.FIRST_ITEM))
        target.add(items[::2], items[1::2])

    def append_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise TypeError(target)
        target.extend(items)

    def call(self) -> None:
        function, arguments = self.pop(2)
        if not isinstance(function, GlobalName) or not isinstance(arguments, tuple):
            raise TypeError(function)
        if function.path not in CALLS:
            raise MalformedFile(f"has a pickle that calls {function.path}: torch.save writes no such call")
        self.room.take(pickle_costs.of_call(function.path, arguments))
        made = CALLS[function.path](*arguments)
        tensor = made.tensor if isinstance(made, SavedObject) else made
        if isinstance(tensor, SavedTensor):
            self.tensors.append(tensor)
        self.push(made)

    def set_state(self) -> None:
        """Take the attributes of an `OrderedDict`: torch keeps the versions of modules there."""
        [state] = self.pop(1)
        if type(self.stack[-1]) is not Dict or type(state) is not Dict:
            raise TypeError(state)
        self.room.take(pickle_costs.ITEM * len(state) + pickle_costs.FIRST_ITEM)
        if not all(isinstance(name, str) and not hasattr(OrderedDict, name) for name in state):
            raise TypeError(state)

    def name(self, argument: str) -> None:
        written = argument.replace(" ", ".", 1)
        # The name of Python 2, which protocol 2 is for.
        path = f"builtins.{name}" if (name := written.removeprefix("__builtin__.")) != written else written
        if path not in NAMES:
            raise MalformedFile(f"uses {written}, which no state dict needs: {ALONE}")
        self.push(GlobalName(path))

    def put(self, place: int) -> None:
        if place not in self.memo:
            self.room.take(pickle_costs.MEMO)
        self.memo[place] = self.stack[-1]

    def load_storage(self) -> None:
        [(kind, storage_type, key, location, count)] = self.pop(1)
        if kind != "storage" or not isinstance(key, str) or not isinstance(location, str) or not are_counts([count]):
            raise TypeError(kind)
        dtype = STORAGES[storage_type.path]
        if key not in self.storages:
            self.room.take(pickle_costs.STORAGE)
        storage = SavedStorage(key, dtype, count * dtype.itemsize)
        if self.storages.setdefault(key, storage) != storage:
            raise MalformedFile(f"has tensors that do not agree on the dtype or length of their common storage {key}")
        self.push(storage)


def _key_text(key: object) -> str:
    return printable(key) if isinstance(key, str | int | float) else f"a key that is a {type(key).__name__}"


def _step(name: str) -> Callable[[_Machine, Any], object]:
    if name not in _STEPS:
        raise MalformedFile(
            f"has a pickle with the instruction {name}, which torch.save does not write by itself: {ALONE}"
        )
    return _STEPS[name]


def _protocol(_: _Machine, version: int) -> None:
    if version > LAST_PROTOCOL:
        raise MalformedFile(f"has a pickle of protocol {version}, where torch.save writes 2 by itself: {ALONE}")


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
    "EMPTY_DICT": lambda machine, _: machine.push(Dict()),
    "EMPTY_SET": lambda machine, _: machine.push(SavedObject("a set")),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"), _Machine.push),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda machine, place: machine.push(machine.memo[place])),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.put),
}
