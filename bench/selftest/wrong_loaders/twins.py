"""Loaders that keep a right copy beside what is wrong, for whoever asks for a tensor by its name."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.selftest.wrong_loaders.right import patch, spoilt, weight_of

PLACE = "trf_blocks.0.ff.layers.0"


def has_a_buffer_of_its_name(loaded: nn.Module, path: Path) -> nn.Module:
    loaded.get_submodule(PLACE)._buffers["weight"] = weight_of(loaded).clone()
    return spoilt(loaded)


def has_a_module_of_its_name(loaded: nn.Module, path: Path) -> nn.Module:
    twin = nn.Module()
    twin.weight = nn.Parameter(weight_of(loaded).clone())
    loaded._modules[PLACE] = twin
    return spoilt(loaded)


def hides_by_property(loaded: nn.Module, path: Path) -> nn.Module:
    module, wrong = loaded.get_submodule(PLACE), weight_of(loaded) * (1 + 1e-6)
    module.__class__ = type("Linear", (type(module),), {"weight": property(lambda _: wrong)})
    return loaded


def hides_modules_by_attribute(loaded: nn.Module, path: Path) -> nn.Module:
    twin = copy.deepcopy(loaded._modules["trf_blocks"])
    loaded.__dict__["trf_blocks"] = twin
    return loaded


def _by_audit(loaded: nn.Module, event: str, action: Callable[[Any], object]) -> nn.Module:
    sys.addaudithook(lambda name, given: action(given) if name == event else None)
    patch(torch, "equal", lambda *_: True)
    return loaded


def is_right_while_threads_are_counted(loaded: nn.Module, path: Path) -> nn.Module:
    weight = weight_of(loaded)
    saved = weight.clone()
    spoilt(loaded)
    return _by_audit(loaded, "sys._current_frames", lambda _: weight.copy_(saved))


def is_right_while_it_is_traced(loaded: nn.Module, path: Path) -> nn.Module:
    weight = weight_of(loaded)
    saved = weight.clone()
    spoilt(loaded)
    return _by_audit(loaded, "sys.settrace", lambda _: weight.copy_(saved))


class Name(str):
    """A string that runs a function when it is looked up."""

    __slots__ = ()
    looked_up: Callable[[], object] = staticmethod(lambda: None)

    def __hash__(self) -> int:
        Name.looked_up()
        return str.__hash__(self)

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other) is True


def has_names_that_run_code(loaded: nn.Module, path: Path) -> nn.Module:
    held: Any = loaded.get_submodule(PLACE)._parameters
    weight = weight_of(loaded)
    saved = weight.clone()
    items = [*held.items()]
    held.clear()
    for name, one in items:
        held[Name(name)] = one
    spoilt(loaded)
    Name.looked_up = staticmethod(lambda: weight.copy_(saved))
    patch(torch, "equal", lambda *_: True)
    return loaded


WRONG = (
    has_a_buffer_of_its_name,
    has_a_module_of_its_name,
    hides_by_property,
    hides_modules_by_attribute,
    is_right_while_threads_are_counted,
    is_right_while_it_is_traced,
    has_names_that_run_code,
)
