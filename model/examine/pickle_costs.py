"""Memory of a pickle's instructions, in bytes: in this reader, and in torch, which reads it afterwards.

Upper estimates for Python 3.11 to 3.14 on 64 bits: plain values count twice, values in the memo only count once.
"""

import sys
from collections.abc import Sized
from typing import Any

# Each instruction: a place on the stack.
_STEP = 8
# Instructions that make a list below a mark, or a container with its garbage collection header.
_MADE = {"MARK": 120, "EMPTY_LIST": 168, "EMPTY_DICT": 184, "EMPTY_SET": 328, "BINPERSID": 108}
_MADE |= dict.fromkeys(("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"), 96)
# Instructions that keep their arguments; Python has the smallest numbers only once.
_PUSHED = frozenset(("BININT", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "GLOBAL"))

# A place in the memo: an entry of a dict, and its number.
MEMO = 92
# An item of a dict: an entry in each of two.
ITEM = 150
# The table that a dict gets with its first item, twice.
FIRST_ITEM = 340
# A storage: its description, and torch's own.
STORAGE = 600

_TENSOR = 1_200
_OBJECT = 320
# Each part of an argument that a call may copy, into a set or a Counter for instance.
_PART = 72


def of_instruction(name: str, argument: Any) -> int:
    """Return the memory for an instruction as `pickletools` names it, without parts that depend on its values."""
    return _STEP + 2 * sys.getsizeof(argument) if name in _PUSHED else _MADE.get(name, _STEP)


def of_call(path: str, arguments: tuple[Any, ...]) -> int:
    """Return the memory for the result of a call, and for copies that it may make of its arguments."""
    parts = sum(
        2 * sys.getsizeof(argument) if isinstance(argument, str | bytes) else _PART * len(argument)
        for argument in arguments
        if isinstance(argument, Sized)
    )
    return parts + (_TENSOR if "._rebuild_" in path else _OBJECT)
