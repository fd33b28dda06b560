"""The command line: every option in one table, and what they say, checked."""

import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from bench.conformance.properties import PROPERTIES
from bench.meters import KINDS, device_named, kind_of
from bench.meters.driver.variables import stand_in_memory
from bench.plugin.budget_options import BUDGET_OPTIONS, budget
from bench.plugin.settings import Settings
from bench.plugin.sharded_options import SHARDED_OPTIONS, teams
from bench.plugin.stand_in import STAND_IN_OPTIONS
from bench.plugin.user_options import OWN_OPTIONS, REPEATED, own_model, own_strategies
from bench.sharded.recipes import SHARDED
from bench.strategies import KNOWN, PEERS, STRATEGIES
from model.architecture import DTYPES
from model.checkpoint_cache import cache_folder
from model.gpt2 import SIZES
from model.parallel import PARALLELISMS

ALL_SIZES = ("small", "medium", "large", "xl")
# What a default run measures needs nothing but torch.
STRATEGY_GROUPS = {"all": STRATEGIES, "peers": PEERS}

# Name, default, metavar (None: a flag), meaning.
Option = tuple[str, Any, str | None, str]

OPTIONS: tuple[Option, ...] = (
    ("--sizes", "small", "LIST", f"GPT-2 sizes, a comma list of {', '.join(SIZES)}; all: small to xl"),
    (
        *("--device", "auto", "DEVICE"),
        f"device to load to: {', '.join(kind.help for kind in KINDS.values())}; auto: CUDA if there is one, else sim "
        "for memory and cpu for time",
    ),
    (
        "--strategies",
        "all",
        "LIST",
        f"a comma list of {', '.join(STRATEGIES)}; all: these; peers: the loaders of other projects, which are "
        f"{', '.join(PEERS)}",
    ),
    *STAND_IN_OPTIONS,
    *OWN_OPTIONS,
    *BUDGET_OPTIONS,
    *SHARDED_OPTIONS,
    ("--dtype", "float32", "DTYPE", f"dtype of the checkpoint: {', '.join(DTYPES)}"),
    (
        *("--cast", None, "DTYPE"),
        f"dtype that floating-point weights end in, whatever the checkpoint has: {', '.join(DTYPES)} (default: the "
        f"checkpoint's)",
    ),
    (
        "--checkpoints",
        None,
        "FOLDER",
        "existing folder to keep checkpoints in (default: weight-loading/ in your cache folder)",
    ),
    (
        *("--cache", "warm", "STATE"),
        "where the checkpoint is before each load: warm, in the page cache; cold, evicted from it",
    ),
    ("--plan", False, None, "compute the peaks without loading: needs no weights, no memory and no GPU"),
    ("--conformance", False, None, "print which kinds of models each strategy loads correctly, as tables to paste"),
    (
        *("--export", None, "FOLDER"),
        "folder to write figures for github-action-benchmark and Bencher into (default: none)",
    ),
    (
        *("--report", None, "FOLDER"),
        "folder to write the page of the run into (default: report/ beside the recorded runs: results/report/)",
    ),
    ("--require-all", False, None, "fail if a strategy refuses the model, or is skipped"),
    ("--explain", False, None, "show what was alive at every peak: bytes and tensors by the line that allocated them"),
)


def add_options(group: Any, options: Iterable[Option]) -> None:
    """Add options to an option group of pytest."""
    for option in options:
        name, default, metavar, _ = option
        shown = help_text(option).replace("%", "%%")
        if name in REPEATED:
            group.addoption(name, action="append", default=default, metavar=metavar, help=shown)
        elif metavar is None:
            group.addoption(name, action="store_true", default=default, help=shown)
        else:
            group.addoption(name, default=default, metavar=metavar, help=shown)


def help_text(option: Option) -> str:
    """Return the meaning of an option, with its default."""
    _, default, metavar, meaning = option
    if metavar is None:
        return f"{meaning} (default: off)"
    return meaning if default is None else f"{meaning} (default: {default})"


def settings(options: Any) -> Settings:
    """The options of one run, checked. Raises `ValueError` with one line: what is wrong, and what would be right."""
    device, real_device = _devices(options.device, planned=options.plan)
    kind_of(device).require_counts()
    many = teams(options, device, os.environ)
    cast = _dtype("--cast", options.cast) if options.cast is not None else ""
    model, strategies = own_model(options), own_strategies(options)
    known, groups = (SHARDED, {"all": SHARDED}) if many else (KNOWN, STRATEGY_GROUPS)
    return Settings(
        sizes=(model.label,) if model else _names("--sizes", options.sizes, SIZES, {"all": ALL_SIZES}),
        strategies=(*_names("--strategies", options.strategies, known, groups), *strategies),
        device=device,
        real_device=real_device,
        dtype=model.dtype if model else _dtype("--dtype", options.dtype),
        checkpoints=_checkpoints(options.checkpoints),
        cache=_cache(options.cache, planned=options.plan),
        planned=options.plan,
        require_all=options.require_all,
        explain=options.explain,
        conformance=options.conformance,
        export=_folder("--export", options.export),
        report=_folder("--report", options.report),
        own=model,
        own_strategies=strategies,
        tolerated=_tolerated(options.tolerate, strategies),
        budget=budget(options, device),
        find_minimum=options.find_minimum,
        teams=many,
        parallelisms=_names("--parallelism", options.parallelism, PARALLELISMS, {"all": PARALLELISMS}),
        cast=cast,
        stand_in=stand_in_memory() if kind_of(device).is_gpu else None,
    )


def _names(option: str, text: str, known: Collection[str], groups: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """The names of a comma list, each once; some names stand for a group of them."""
    names: dict[str, None] = {}
    for name in (part.strip() for part in text.split(",")):
        if name in groups:
            names |= dict.fromkeys(groups[name])
        elif name in known:
            names[name] = None
        else:
            raise ValueError(f"{option}: there is no {name!r}; choose from {', '.join((*known, *groups))}")
    return tuple(names)


def _tolerated(text: str | None, strategies: Collection[str]) -> tuple[str, ...]:
    if text is None:
        return ()
    if not strategies:
        raise ValueError("--tolerate is for a loader of yours: name it with --strategy")
    return _names("--tolerate", text, PROPERTIES, {})


def _folder(option: str, text: str | None) -> Path | None:
    if text is None:
        return None
    if not text or (Path(text).exists() and not Path(text).is_dir()):
        raise ValueError(f"{option}: {text!r} is not a folder; name one, it is made if it is not there")
    return Path(text)


def _dtype(option: str, text: str) -> str:
    if text not in DTYPES:
        raise ValueError(f"{option}: there is no {text!r}; choose one of {', '.join(DTYPES)}")
    return text


def _cache(text: str, *, planned: bool) -> str:
    if text not in ("warm", "cold"):
        raise ValueError(f"--cache: there is no {text!r}; choose warm or cold")
    if text == "cold" and planned:
        raise ValueError("--cache cold: a plan reads no file; leave out --plan to measure cold loads")
    if text == "cold" and not hasattr(os, "posix_fadvise"):
        raise ValueError("--cache cold: this system does not let a file be evicted; leave it out")
    return text


def _devices(text: str, *, planned: bool) -> tuple[str, str | None]:
    """The device on which memory is measured, and that of what wants values; None where nothing has any."""
    if planned:
        plannable = [name for name, kind in KINDS.items() if kind.is_plannable]
        if text not in ("auto", *plannable):
            known = " or ".join(reversed(plannable))
            raise ValueError(f"--device {text}: a plan is made for {known}; leave out --plan to measure on {text}")
        return ("sim" if text == "auto" else text), None
    if text == "auto" and not torch.cuda.is_available():
        return "sim", "cpu"
    device = device_named("cuda" if text == "auto" else text)
    return device, device if kind_of(device).has_values else None


def _checkpoints(text: str | None) -> Path:
    if text is None:
        return cache_folder()
    folder = Path(text)
    if not text or not folder.is_dir():
        raise ValueError(f"--checkpoints: {text!r} is not a folder; name one that exists")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"--checkpoints: {text} cannot be written to; name a folder that can")
    return folder
