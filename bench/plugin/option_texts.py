"""Parsers of option values. Each raises `ValueError` with one line: what is wrong, and what would be right."""

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from bench.measure.terms import Terms
from bench.meters import device_named
from bench.meters.driver.card import CardSettings
from model.architecture import DTYPES
from model.byte_sizes import short_size
from model.layouts.layouts import LAYOUTS

# What an allocator takes at once.
LEAST_BYTES, MOST_BYTES = 2 * 2**20, 2**50
# The least memory of a stand-in for a GPU.
LEAST_CARD_BYTES = 2 * 2**30
DEFAULT_RANKS, MOST_RANKS = 2, 2**20
# More are not read.
MOST_NAMES = 12

# Those that more than one library loads.
ASKED_LAYOUTS = (*LAYOUTS, "dcp")

_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_UNITS = {"": 1, "B": 1} | {
    f"{prefix}{suffix}": base**power
    for power, prefix in enumerate("KMGT", 1)
    for suffix, base in (("iB", 1024), ("B", 1000))
}


def names(known: Collection[str], groups: Mapping[str, Collection[str]]) -> Callable[[str], tuple[str, ...]]:
    """Return a parser of comma lists of known names, each once; a name of `groups` stands for several."""

    def parse(text: str) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for name in (part.strip() for part in text.split(",")):
            if name in groups:
                found |= dict.fromkeys(groups[name])
            else:
                found[one_of((*known, *groups), name)] = None
        return tuple(found)

    return parse


def one_of(choices: Sequence[str], text: str) -> str:
    """Return a text that is one of some choices. Raises `ValueError` with the choices, and the one that is like it."""
    if text in choices:
        return text
    alike = get_close_matches(text, choices, 1, cutoff=0.75)
    meant = f"did you mean {alike[0]}? C" if alike else "c"
    raise ValueError(f"{text!r} is unknown; {meant}hoose from {', '.join(choices)}")


def listed_names(names: Collection[str]) -> str:
    """Write the first of some names in order, and how many more there are."""
    first = sorted(names)[:MOST_NAMES]
    more = len(names) - len(first)
    return f"{', '.join(first)}{f' and {more:,} more' if more else ''}"


def dtype(text: str) -> str:
    """Return the name of a dtype of `DTYPES`."""
    return one_of((*DTYPES,), text)


def layout(text: str) -> str:
    """Return the name of a layout that any project may save in."""
    return one_of(ASKED_LAYOUTS, text)


def cache_state(text: str) -> str:
    """Return `warm` or `cold`."""
    return one_of(("warm", "cold"), text)


def device(text: str) -> str:
    """Return the name of a device, whether it is there or not: `cuda:01` is `cuda:1`."""
    return text if text == "auto" else device_named(text)


def folder(text: str) -> Path:
    """Return a folder that may have to be made."""
    if not text:
        raise ValueError("the name is empty; name a folder")
    if Path(text).exists() and not Path(text).is_dir():
        raise ValueError(f"{text!r} is a file; name a folder")
    return Path(text).expanduser()


def writable_folder(text: str) -> Path:
    """Return a folder that can be written to, or that can be made where its nearest parent is."""
    path = folder(text)
    there = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not there.is_dir():
        raise ValueError(f"{text!r} is below the file {there.name}; name another folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{text!r} cannot be written to; name another folder")
    return path


def amount(text: str) -> int:
    """Return the bytes of an amount of memory, such as `8GiB`."""
    match = _AMOUNT.fullmatch(text.strip())
    units = {name.lower(): count for name, count in _UNITS.items()}
    if match is None or match[2].lower() not in units:
        raise ValueError(f"{text!r} is not an amount of memory; write a number and a unit, such as 8GiB or 800MB")
    if float(match[1]) * units[match[2].lower()] > MOST_BYTES:
        raise ValueError(f"{text!r} is more than any machine has; give at most {MOST_BYTES // 2**40}TiB")
    if (count := int(float(match[1]) * units[match[2].lower()])) < LEAST_BYTES:
        more = f"give at least {short_size(LEAST_BYTES)}" if match[2] else "add a unit, such as GiB"
        raise ValueError(f"{count:,} bytes are too little for any load; {more}")
    return count


def card(text: str) -> CardSettings:
    """Return stand-ins for GPUs, one for each amount of a comma list."""
    settings = CardSettings(tuple(map(amount, text.split(","))))
    if min(settings.memory_bytes) < LEAST_CARD_BYTES:
        raise ValueError(
            f"{text} is too little: pytest and the load take {settings.context_bytes // 2**20} MiB each for a CUDA "
            f"context; give at least 2GiB"
        )
    return settings


def rank_counts(text: str) -> tuple[int, ...]:
    """Return the numbers of processes of a comma list, each once."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 < int(part) <= MOST_RANKS for part in parts):
        raise ValueError(
            f"{text!r} is not a number of processes from 2 to {MOST_RANKS:,}; give one such as 8, or a list such as "
            f"8,64"
        )
    return tuple(dict.fromkeys(map(int, parts)))


def node_ranks(text: str) -> int:
    """Return the number of processes of a node."""
    if not text.isdecimal() or not 1 <= int(text) <= MOST_RANKS:
        raise ValueError(f"{text!r} is not a number of processes from 1 to {MOST_RANKS:,}; give one such as 8")
    return int(text)


def bound(text: str) -> str:
    """Return a bound on a peak, such as `S + L`, whose grammar is right."""
    Terms(state_bytes=1, largest_tensor_bytes=1).bound_bytes(text)
    return text


def fraction(text: str) -> float | None:
    """Return a percentage as a fraction; None for `off`."""
    if text == "off":
        return None
    if not re.fullmatch(r"\d+(\.\d+)?%", text):
        raise ValueError(f"{text!r} is not a percentage; give one such as 1% or 0.5%, or off")
    return float(text.removesuffix("%")) / 100


def rounds(least: int) -> Callable[[str], int]:
    """Return a parser of a number of rounds, of which it takes `least` to tell their spread."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            few = f"{int(text)} rounds have no spread" if text.isdecimal() else f"{text!r} is not a number"
            raise ValueError(f"{few}; give at least {least}")
        return int(text)

    return parse
