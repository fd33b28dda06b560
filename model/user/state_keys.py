"""Keys of the state dict in a `torch.save` file."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from model.examine.pickle_objects import SavedTensor
from model.printable import printable
from model.state_dict import EXTRA_STATE
from model.user.fitting import TargetModel

MOST_LISTED = 10
# No state dict is deeper in a checkpoint.
MOST_LEVELS = 4
# No key on the way to one is longer.
MOST_KEY_CHARACTERS = 1_000

# Keys of nested dicts, from the outermost.
Keys = tuple[str | int | float, ...]


def found_keys(path: Path, saved: object, target: TargetModel, state_key: str | None) -> Keys:
    """Return the keys that lead to the state dict. Raises `ValueError` with the choices if the user has to choose."""
    states = dict(state_dicts(saved))
    named = [keys for keys in states if keys]
    if state_key is not None:
        meant = [keys for keys in states if _dotted(keys) == state_key]
        if len(meant) > 1:
            raise ValueError(
                f"--state-key: {state_key!r} leads to several state dicts of {path}; save the one that you "
                f"mean by itself"
            )
        if meant and meant[0]:
            return meant[0]
        there = f"choose from {_largest(named, states)}" if named else "it is one itself: leave out --state-key"
        raise ValueError(f"--state-key: {path} has no state dict {state_key!r}; {there}")
    # A dict with numbers in it has to be the model's, or the only one.
    if () in states and (not named or _holds_tensors_only(states[()]) or target.has_names_of(states[()])):
        return ()
    # One dict may be there under many keys.
    fits = {id(value): target.has_names_of(value) for value in {id(one): one for one in states.values()}.values()}
    fitting = [keys for keys in named if fits[id(states[keys])]]
    if fitting:
        offered = " or ".join(f"--state-key {printable(_dotted(keys))}" for keys in fitting[:MOST_LISTED])
        raise ValueError(f"--checkpoint: {path} holds more than the state dict of the model; add {offered}")
    if named:
        raise ValueError(
            f"--checkpoint: {path} has state dicts of another model, {_largest(named, states)}; add --state-key NAME "
            f"to see what differs"
        )
    raise ValueError(f"--checkpoint: {path} has no state dict; save model.state_dict()")


def _dotted(keys: Keys) -> str:
    return ".".join(map(str, keys))


def _largest(named: Sequence[Keys], states: Mapping[Keys, Mapping[str, Any]]) -> str:
    """Return the keys of the state dicts with the most tensors, and the number of the others, as text."""
    largest = sorted(named, key=lambda keys: -len(states[keys]))
    more = len(largest) - MOST_LISTED
    first = [printable(_dotted(keys)) for keys in largest[:MOST_LISTED]]
    return f"{', '.join(first)}{f' and {more:,} more' if more > 0 else ''}"


def state_dicts(
    value: object, keys: Keys = (), seen: dict[int, bool] | None = None, entered: set[int] | None = None
) -> Iterator[tuple[Keys, dict[str, Any]]]:
    """Yield every dict of tensors in what is saved, with the keys that lead to it.

    It may hold numbers and other such dicts too. `seen` has the result for each dict that was checked, `entered` the
    dicts that were searched: dicts may hold each other, and many may hold the same.
    """
    seen, entered = {} if seen is None else seen, set() if entered is None else entered
    if not isinstance(value, dict) or not value:
        return
    if id(value) not in seen:
        seen[id(value)] = all(isinstance(name, str) for name in value) and any(
            isinstance(one, SavedTensor) for one in value.values()
        )
    if seen[id(value)]:
        yield keys, value
    if len(keys) < MOST_LEVELS and id(value) not in entered:
        entered.add(id(value))
        for key, one in value.items():
            if isinstance(one, dict) and _may_lead(key):
                yield from state_dicts(one, (*keys, key), seen, entered)


def _may_lead(key: object) -> bool:
    return isinstance(key, int | float) or (isinstance(key, str) and len(key) <= MOST_KEY_CHARACTERS)


def _holds_tensors_only(value: Mapping[str, Any]) -> bool:
    return all(isinstance(one, SavedTensor) or name.endswith(EXTRA_STATE) for name, one in value.items())
