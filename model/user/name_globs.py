"""Globs for names that a checkpoint may lack or have in addition: matched, checked and suggested."""

import glob
import re
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from model.examine.trust import UntrustedCheckpoint, one_line
from model.state_dict import first_names
from model.user.conversion_request import ConversionRequest
from model.user.renaming import LONGEST_NAME, MOST_NAMES, beginnings, by_rules, listed


def is_named(name: str, globs: Iterable[str]) -> bool:
    """Return whether one of the globs matches a name."""
    return any(fnmatchcase(name, one) for one in globs)


def lacking(held: Collection[str], wanted: Mapping[str, Any], globs: Collection[str]) -> tuple[str, ...]:
    """Return names of a model that may be missing and are; names of a tied tensor only if all may and all are."""
    if not globs:
        return ()
    firsts = first_names(wanted)
    kept = {firsts[name] for name in held if name in firsts}
    kept |= {first for name, first in firsts.items() if not is_named(name, globs)}
    return tuple(name for name, first in firsts.items() if first not in kept)


def require_effect(saved: Iterable[str], expected: Iterable[str], wanted: ConversionRequest) -> None:
    """Raise `ValueError`, in a line, for an option that matches no name, and for a rule that makes two names one.

    `saved` are the names in the checkpoint, `expected` those of the model.
    """
    _require_match("--allow-missing", wanted.missing, "model", [*expected])
    names = [*saved]
    for pattern, replacement in wanted.renames:
        if not any(re.search(pattern, name) for name in names):
            raise ValueError(_unmatched("--rename", pattern, "checkpoint", names))
        befores: dict[str, str] = {}
        for name in names:
            to = by_rules(name, [(pattern, replacement)])
            if (before := befores.setdefault(to, name)) != name:
                both = one_line(f"{before!r} and {name!r} both become {to!r}")
                raise ValueError(f"--rename: {both} by {pattern!r}; write a pattern that matches one of them")
        names = [*befores]
    _require_match("--allow-surplus", wanted.surplus, "checkpoint", names)
    if wanted.surplus and all(is_named(name, wanted.surplus) for name in names):
        globs = ", ".join(map(repr, wanted.surplus))
        raise ValueError(f"--allow-surplus: {globs} matches all names in the checkpoint; leave some of them to load")


def require_lacking(names: Collection[str], wanted: ConversionRequest) -> None:
    """Raise `ValueError`, in a line, if names may be missing and none is.

    Such a load would be one of the whole checkpoint, where the user wanted a new head, for instance.
    """
    if wanted.missing and not names:
        globs = ", ".join(map(repr, wanted.missing))
        raise ValueError(
            f"--allow-missing: the checkpoint has all names that {globs} matches; leave out --allow-missing to load "
            f"them, or leave them out of the load with --allow-surplus"
        )


def advice(differences: Collection[UntrustedCheckpoint], names: Mapping[str, str], wanted: Mapping[str, Any]) -> str:
    """Return options that make a checkpoint fit the model, as the end of an error; "" if most of it does not fit.

    `names` are those in the checkpoint, as globs match them, by the names that they get.
    """
    reasons = {one.key: one.reason for one in differences if one.key is not None}
    lacked = [key for key in reasons if key not in names]
    surplus = [key for key in reasons if key in names and key not in wanted]
    reshaped = [key for key in reasons if key in names and key in wanted and reasons[key].startswith("has the shape")]
    fitting = names.keys() & wanted.keys() - reasons.keys()
    if len(lacked) + len(surplus) + len(reshaped) < len(reasons) or not fitting:
        return ""
    left_out = _globs([names[key] for key in (*surplus, *reshaped)], names.values())
    missing = _globs([*lacked, *reshaped], wanted)
    if max(len(left_out), len(missing)) > MOST_NAMES or any(_is_hostile(one) for one in (*left_out, *missing)):
        return ""
    options = [f"--allow-surplus {one!r}" for one in left_out] + [f"--allow-missing {one!r}" for one in missing]
    does = ["leave out what the model lacks"] * bool(surplus) + ["keep what the model starts with"] * bool(missing)
    return f"; add {' '.join(options)} to {' and '.join(does)}"


def _is_hostile(glob: str) -> bool:
    return len(glob) > LONGEST_NAME or not glob.isprintable()


def _globs(names: Collection[str], every: Iterable[str]) -> list[str]:
    """Return the shortest globs that match these names, and no others of `every` name."""
    others = {beginning for name in set(every) - set(names) for beginning in beginnings(name)}
    found = []
    for name in names:
        own = next((one for one in beginnings(name) if one not in others), None)
        found.append(f"{glob.escape(own)}*" if own else glob.escape(name))
    return list(dict.fromkeys(found))


def _require_match(option: str, globs: Iterable[str], whose: str, names: list[str]) -> None:
    for one in globs:
        if not any(fnmatchcase(name, one) for name in names):
            raise ValueError(_unmatched(option, one, whose, names))


def _unmatched(option: str, text: str, whose: str, names: list[str]) -> str:
    return one_line(f"{option}: {text!r} matches no name of the {whose}; choose from {listed(names)}")
