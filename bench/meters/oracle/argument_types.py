"""Kinds of values on a command line."""

from argparse import ArgumentTypeError
from collections.abc import Collection


def count(text: str) -> int:
    """A number from 1 on."""
    if not text.isdecimal() or int(text) == 0:
        raise ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def names(text: str, known: Collection[str]) -> list[str]:
    """Some of the known names, as `tiny,small`."""
    found = text.split(",")
    if unknown := sorted(set(found) - set(known)):
        raise ArgumentTypeError(f"there is no {', '.join(unknown)}; there are {', '.join(known)}")
    return found


def numbers(text: str) -> list[int]:
    """Numbers from 0 on, as `1,3`."""
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts):
        raise ArgumentTypeError(f"{text!r} is no comma list of numbers")
    return [int(part) for part in parts]
