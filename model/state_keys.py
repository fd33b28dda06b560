"""Where the state dict of a model is in what a file of torch holds: by keys that lead to it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from model.fitting import Target
from model.pickled import SavedTensor
from model.trust import EXTRA_STATE, one_line

MOST_SHOWN = 10
# Nobody has a state dict deeper in a checkpoint.
MOST_LEVELS = 4

# What leads to a value within others.
Keys = tuple[str | int | float, ...]


def found_keys(path: Path, saved: object, target: Target, state_key: str | None) -> Keys:
    """What leads to the state dict. Raises `ValueError` with what there is, if that is for the user to say."""
    states = dict(_states(saved))
    named = {".".join(map(str, keys)): keys for keys in states if keys}
    if state_key is not None:
        if [".".join(map(str, keys)) for keys in states].count(state_key) > 1:
            raise ValueError(
                f"--state-key: {state_key!r} leads to several state dicts of {path}: save the one you mean by itself"
            )
        if state_key in named:
            return named[state_key]
        there = f"it has {_largest(named, states)}" if named else "it holds one, and nothing else; leave it out"
        raise ValueError(f"--state-key: {path} has no state dict {state_key!r}; {there}")
    # One in which there are numbers too has to be the model's, or the only one.
    if () in states and (not named or _holds_tensors_only(states[()]) or target.has_names_of(states[()])):
        return ()
    fitting = [name for name, keys in named.items() if target.has_names_of(states[keys])]
    if fitting:
        offered = " or ".join(f"--state-key {name}" for name in fitting[:MOST_SHOWN])
        raise ValueError(f"--checkpoint: {path} holds more than the state dict of the model: add {offered}")
    if named:
        raise ValueError(
            f"--checkpoint: {path} holds state dicts of another model, {_largest(named, states)}: with "
            f"--state-key NAME it says what differs"
        )
    raise ValueError(f"--checkpoint: {path} holds no state dict; save model.state_dict()")


def _largest(named: Mapping[str, Keys], states: Mapping[Keys, Mapping[str, Any]]) -> str:
    """The names of the state dicts with the most tensors, and how many more there are."""
    largest = sorted(named, key=lambda name: -len(states[named[name]]))
    more = len(largest) - MOST_SHOWN
    return f"{', '.join(map(one_line, largest[:MOST_SHOWN]))}{f' and {more:,} more' if more > 0 else ''}"


def _states(
    value: object, keys: Keys = (), seen: dict[int, object] | None = None
) -> Iterator[tuple[Keys, dict[str, Any]]]:
    """Every dict of tensors in what is saved, and the keys that lead to it.

    It may hold numbers too, and such dicts. `seen` are those that were looked into: dicts may hold each other.
    """
    seen = {} if seen is None else seen
    if not isinstance(value, dict) or not value:
        return
    if all(isinstance(name, str) for name in value) and any(isinstance(one, SavedTensor) for one in value.values()):
        yield keys, value
    if len(keys) < MOST_LEVELS and id(value) not in seen:
        seen[id(value)] = value
        for key, one in value.items():
            if isinstance(key, str | int | float):
                yield from _states(one, (*keys, key), seen)


def _holds_tensors_only(value: Mapping[str, Any]) -> bool:
    return all(isinstance(one, SavedTensor) or name.endswith(EXTRA_STATE) for name, one in value.items())
