"""Modules of the user's code in a run, and the folders and libraries that contain it."""

import sys
from pathlib import Path
from sysconfig import get_path

from bench.plugin.settings import Settings
from bench.strategies.lazy_recipe import LazyRecipe
from model.user.factory import Factory


def references(chosen: Settings) -> list[Factory]:
    """Return the functions and classes that are the user's."""
    loads = [strategy.load for strategy in chosen.own_strategies.values()]
    models = [chosen.own.factory, chosen.own.example] if chosen.own else []
    return [*filter(None, models), *(load.reference for load in loads if isinstance(load, LazyRecipe))]


def libraries(chosen: Settings) -> set[str]:
    """Return the modules of installed packages that the user's model is made of: their import may take seconds."""
    if chosen.own is None:
        return set()
    named = {type(module).__module__ for module in chosen.own.skeleton().modules()}
    files = {name: getattr(sys.modules.get(name), "__file__", None) or "" for name in named}
    return {name for name, file in files.items() if file.startswith(get_path("purelib"))}


def folders(chosen: Settings) -> list[Path]:
    """Return the folders of the user's code and checkpoint."""
    source = chosen.own.source if chosen.own else None
    found = [one.folder for one in references(chosen) if one.folder]
    return [*found, *([source.path.parent] if source else [])]
