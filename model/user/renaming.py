"""Renaming of a checkpoint's names to the model's: prefixes and names of training wrappers are added or removed."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from itertools import islice

# Parts of names that wrappers add: data parallel training, AveragedModel, torch.compile, FSDP and activation
# checkpointing.
WRAPPERS = frozenset(("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))

MOST_NAMES = 3
# Characters of a name, which may be long in a hostile file.
LONGEST_NAME = 200
# No prefix has more segments.
MOST_SEGMENTS = 16


def renamed(names: Mapping[str, str], expected: Set[str]) -> dict[str, str]:
    """Return the new name for each key of `names` in a model whose names are `expected`, as far as rules find it.

    No two become the same: if the rules would do that, every name stays as it is.
    """
    same, short = dict(names), {name: _unwrapped(to) for name, to in names.items()}
    if set(same.values()) <= expected:
        return same if len(set(same.values())) == len(same) else {name: name for name in names}
    here = {_unwrapped(name): name for name in expected}
    if len(set(short.values())) < len(short) or len(here) < len(expected):
        short, here = same, {name: name for name in expected}
    surplus, absent = _prefix(set(short.values()), here.keys())
    found = {}
    for name, bare in short.items():
        model_name = f"{absent}{bare}" if absent and f"{absent}{bare}" in here else bare.removeprefix(surplus)
        found[name] = here.get(model_name, model_name)
    return found if len(set(found.values())) == len(found) else {name: name for name in names}


def rule(text: str) -> tuple[str, str]:
    """Split `REGEX=REPLACEMENT` into a regular expression and its replacement.

    Raises `ValueError`, in a line, if they cannot be used.
    """
    pattern, _, replacement = text.rpartition("=")
    if not pattern:
        raise ValueError(f"{text!r} is not REGEX=REPLACEMENT; write a pattern, '=', and what replaces it")
    try:
        re.compile(pattern).sub(replacement, "")
    except (re.error, IndexError, OverflowError) as error:
        raise ValueError(f"{text!r} is not a valid expression ({error}); correct it") from None
    return pattern, replacement


def by_rules(name: str, rules: Iterable[tuple[str, str]]) -> str:
    """Apply regular expressions and their replacements to a name, in order.

    An expression that matches a whole name is used once: `(.*)` matches its end too.
    """
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name, count=1 if re.fullmatch(pattern, name) else 0)
    return name


def beginnings(name: str) -> Iterator[str]:
    """Yield the beginnings of a name up to each of its first dots."""
    return (before for before, _ in _cuts(name))


def changes(names: Mapping[str, str]) -> list[str]:
    """Return notes on a renaming, one for each kind of change."""
    pairs = [(name.split("."), to.split(".")) for name, to in names.items() if name != to]
    notes = []
    for word, kind in (("without", [_rest(*pair) for pair in pairs]), ("with", [_rest(*pair[::-1]) for pair in pairs])):
        if texts := list(dict.fromkeys(filter(None, kind))):
            notes.append(f"names {word} {listed(texts)}")
    return notes


def listed(texts: list[str]) -> str:
    """Return the first of some names, and the number of the others, as text."""
    more = len(texts) - MOST_NAMES
    first = [repr(text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}...") for text in texts[:MOST_NAMES]]
    return f"{', '.join(first)}{f' and {more:,} more' if more > 0 else ''}"


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _prefix(names: Set[str], expected: Set[str]) -> tuple[str, str]:
    """Return the prefix that most names have and should not, and the one that they lack; at least one is empty."""
    counts = Counter({("", ""): len(names & expected)})
    counts.update((prefix, "") for name in names for prefix, rest in _cuts(name) if rest in expected)
    counts.update(("", prefix) for name in expected for prefix, rest in _cuts(name) if rest in names)
    [(prefixes, count)] = counts.most_common(1)
    return prefixes if 2 * count > min(len(names), len(expected)) else ("", "")


def _cuts(name: str) -> Iterator[tuple[str, str]]:
    """Yield a name in two parts, cut after each of its first dots."""
    dots = islice((place for place, letter in enumerate(name) if letter == "."), MOST_SEGMENTS)
    return ((name[: place + 1], name[place + 1 :]) for place in dots)


def _rest(parts: list[str], others: list[str]) -> str:
    """Return the parts of a name that are not in another one."""
    surplus = Counter(parts) - Counter(others)
    found = []
    for part in parts:
        if surplus[part] > 0:
            surplus[part] -= 1
            found.append(f"{part}.")
    return "".join(found)
