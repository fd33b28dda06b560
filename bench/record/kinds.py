"""Kinds of values in JSON: what is read from a file is checked once, before anything is made of it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from bench.record.record_file import Unreadable
from model.printable import printable


class Misfit(NamedTuple):
    """The place of a value that is not of its kind, such as `.benchmarks[3].fullname`, and what it is instead."""

    place: str
    why: str


MISSING = "is missing"

# Returns the first misfit in a value that `json` parsed, or None: it is of this kind.
Kind = Callable[[Any], Misfit | None]

# More than any file, memory or number of seconds has. Greater integers do not fit a float, or a line.
LARGEST = 2**63

# Of what is shown of values that are of no use.
FEW_CHARACTERS = 60

# Lists and objects in a value of which nothing is known but that it is printed.
DEEPEST = 4


def require(kind: Kind, data: Any) -> None:
    """Raise `Unreadable` if data that were parsed are not of a kind."""
    if misfit := kind(data):
        damaged = "is damaged" if misfit.place and misfit.why != MISSING else "is no run of this suite"
        raise Unreadable(f"{damaged}: {printable(misfit.place.removeprefix('.') or 'it')} {misfit.why}")


def one(what: str, fits: Callable[[Any], bool]) -> Kind:
    """Make the kind of single values that fit; `what` says which those are."""

    def check(value: Any) -> Misfit | None:
        return None if fits(value) else Misfit("", f"is {_shown(value)}, and not {what}")

    return check


def nullable(kind: Kind) -> Kind:
    """Make a kind that null is of, too."""

    def check(value: Any) -> Misfit | None:
        return None if value is None else kind(value)

    return check


def each(kind: Kind) -> Kind:
    """Make the kind of lists of values of a kind."""

    def check(value: Any) -> Misfit | None:
        if type(value) is not list:
            return Misfit("", f"is {_shown(value)}, and not a list")
        for number, element in enumerate(value):
            if misfit := kind(element):
                return _within(f"[{number}]", misfit)
        return None

    return check


def fields(required: Mapping[str, Kind], optional: Mapping[str, Kind] | None = None, rest: Kind | None = None) -> Kind:
    """Make the kind of objects with these fields; others are of the kind `rest`, or may be anything."""
    kinds = {**(optional or {}), **required}

    def check(value: Any) -> Misfit | None:
        if type(value) is not dict:
            return Misfit("", f"is {_shown(value)}, and not an object")
        for name in required:
            if name not in value:
                return Misfit(f".{name}", MISSING)
        for name, inner in value.items():
            if (kind := kinds.get(name, rest)) and (misfit := kind(inner)):
                return _within(f".{name}", misfit)
        return None

    return check


def of_equal_lengths(kinds: Mapping[str, Kind]) -> Kind:
    """Make the kind of objects that hold a list of each of these kinds, all of the same length."""
    lists = fields({name: each(kind) for name, kind in kinds.items()})

    def check(value: Any) -> Misfit | None:
        misfit = lists(value)
        if misfit is None and len({len(value[name]) for name in kinds}) > 1:
            return Misfit("", f"has {' and '.join(kinds)} of different lengths")
        return misfit

    return check


def empty_or(kind: Kind) -> Kind:
    """Make a kind that the empty object is of, too."""

    def check(value: Any) -> Misfit | None:
        return None if value == {} else kind(value)

    return check


def in_order(kinds: Sequence[Kind], fewest: int) -> Kind:
    """Make the kind of lists whose elements are of these kinds in turn; the last may be left out."""

    def check(value: Any) -> Misfit | None:
        if type(value) is not list or not fewest <= len(value) <= len(kinds):
            return Misfit("", f"is {_shown(value)}, and not a list of {fewest} to {len(kinds)}")
        for number, (kind, element) in enumerate(zip(kinds, value, strict=False)):
            if misfit := kind(element):
                return _within(f"[{number}]", misfit)
        return None

    return check


def one_of(words: Collection[str]) -> Kind:
    """Make the kind of these words."""
    return one(f"one of {', '.join(words)}", lambda value: type(value) is str and value in words)


def _within(place: str, misfit: Misfit) -> Misfit:
    return Misfit(place + misfit.place, misfit.why)


def _shown(value: Any) -> str:
    """Name a value; what of it may be long is cut, and nothing inside a list or an object is looked at."""
    if value is None or type(value) is bool:
        return {None: "null", True: "true", False: "false"}[value]
    if type(value) is str:
        return f"'{printable(value, FEW_CHARACTERS)}'"
    if type(value) in (list, dict):
        return "a list" if type(value) is list else "an object"
    return printable(value, FEW_CHARACTERS)


def _is_plain(value: Any, depth: int = 0) -> bool:
    if type(value) is list:
        return depth < DEEPEST and all(_is_plain(inner, depth + 1) for inner in value)
    if type(value) is dict:
        return depth < DEEPEST and all(_is_plain(inner, depth + 1) for inner in value.values())
    return value is None or type(value) is str or abs(value) < LARGEST


# `json` makes values of exactly these types, and a bool is no number. No comparison holds for NaN.
TEXT = one("a text", lambda value: type(value) is str)
FLAG = one("true or false", lambda value: type(value) is bool)
NUMBER = one("a number from 0 to 2**63", lambda value: type(value) in (int, float) and 0 <= value < LARGEST)
POSITIVE = one("a number above 0, to 2**63", lambda value: type(value) in (int, float) and 0 < value < LARGEST)
SIGNED = one("a number to 2**63", lambda value: type(value) in (int, float) and abs(value) < LARGEST)
COUNT = one("a whole number", lambda value: type(value) is int and 0 <= value < LARGEST)
PLAIN = one("a plain value", _is_plain)
