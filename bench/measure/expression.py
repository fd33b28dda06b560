"""Expressions of bounds: sums of multiples of terms, such as `2S`, `S + L`, `1.5 S / N` or `0`."""

import re
from collections.abc import Mapping
from fractions import Fraction

_MULTIPLE = re.compile(r"(?P<count>\d+(?:\.\d+)?)?\s*\*?\s*(?P<letter>[A-Z])(?P<share>\s*/\s*N)?|0")


def evaluate(expression: str, terms: Mapping[str, int]) -> int:
    """Return the bytes that a bound means with these terms, by their names.

    Raises `ValueError` if it is no sum of multiples of such terms.
    """
    total = 0
    for text in expression.split("+"):
        match = _MULTIPLE.fullmatch(text.strip())
        name = f"{match['letter']}{'/N' * bool(match['share'])}" if match and match["letter"] else None
        if match is None or (name and name not in terms):
            raise ValueError(
                f"{expression!r} is not a bound; give a sum of multiples of S, L and R, such as 2S or S + L"
            )
        total += int(Fraction(match["count"] or 1) * terms[name]) if name else 0
    return total


def of_rank(expression: str, *, leads: bool) -> str:
    """Return the part of `a | b` that is of rank 0, which `leads`, or of the others."""
    return expression.split("|")[0 if leads else -1]
