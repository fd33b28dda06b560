"""The user's model with its checkpoint, and loaders, and the folders and libraries of their code."""

import sys
from pathlib import Path
from sysconfig import get_path
from typing import TYPE_CHECKING

from bench.plugin.options import Options
from bench.strategies import Strategy, own_strategy
from bench.strategies.lazy_recipe import LazyRecipe
from model.user.conversion_request import ConversionRequest
from model.user.factory import Factory
from model.user.pretrained_folder import weights_of
from model.user.user_model import UserModel, own

if TYPE_CHECKING:
    from bench.plugin.settings import Settings


def user_model(options: Options) -> UserModel | None:
    """Return the user's model; None: the suite's. Raises `ValueError` with one line: what is wrong, what is right."""
    if options.model is None:
        return None
    request = ConversionRequest(options.rename, options.allow_missing, options.allow_surplus, options.cast)
    checkpoint = options.checkpoint
    # A plan needs no weights, but for what is said of their names.
    if checkpoint is None and (request.of_names or not options.plan):
        try:
            checkpoint = weights_of(options.model)
        except ValueError as error:
            raise ValueError(f"--model: {error}") from None
    return own(options.model, checkpoint, options.state_key, options.example, request)


def user_strategies(options: Options) -> dict[str, Strategy]:
    """Return the user's loaders by their names, each with its bound. Raises as `user_model` does."""
    texts, bounds = options.strategy, options.bound
    if len(bounds) not in (0, 1, len(texts)):
        raise ValueError(f"--bound is there {len(bounds)} times, --strategy {len(texts)}: once for each, or for all")
    found: dict[str, Strategy] = {}
    for place, text in enumerate(texts):
        try:
            strategy = own_strategy(text, bounds[place % len(bounds)] if bounds else None)
        except ValueError as error:
            raise ValueError(f"--strategy: {error}") from None
        if strategy.name in found:
            raise ValueError(f"--strategy: there are two functions {strategy.name!r}; rename one of them")
        found[strategy.name] = strategy
    return found


def references(chosen: "Settings") -> list[Factory]:
    """Return the functions and classes that are the user's."""
    loads = [strategy.load for strategy in chosen.own_strategies.values()]
    models = [chosen.own.factory, chosen.own.example] if chosen.own else []
    return [*filter(None, models), *(load.reference for load in loads if isinstance(load, LazyRecipe))]


def libraries(chosen: "Settings") -> set[str]:
    """Return the modules of installed packages that the user's model is made of: their import may take seconds."""
    if chosen.own is None:
        return set()
    named = {type(module).__module__ for module in chosen.own.skeleton().modules()}
    files = {name: getattr(sys.modules.get(name), "__file__", None) or "" for name in named}
    return {name for name, file in files.items() if file.startswith(get_path("purelib"))}


def folders(chosen: "Settings") -> list[Path]:
    """Return the folders of the user's code and checkpoint."""
    source = chosen.own.source if chosen.own else None
    found = [one.folder for one in references(chosen) if one.folder]
    return [*found, *([source.path.parent] if source else [])]
