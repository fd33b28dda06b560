"""Settings of a run: the options of its command line, resolved for this machine."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.meters import KINDS, kind_of
from bench.meters.budget import Budget
from bench.meters.driver.variables import stand_in_memory
from bench.plugin.divisions import divisions
from bench.plugin.option_texts import names
from bench.plugin.options import Options
from bench.plugin.rank_groups import rank_groups
from bench.plugin.user_options import user_model, user_strategies
from bench.sharded.rank_group import RankGroup
from bench.sharded.recipes import SHARDED
from bench.strategies import KNOWN, PEERS, STRATEGIES, Strategy
from model.checkpoints.cache import cache_folder
from model.parallel.division import Division
from model.user.user_model import UserModel

# What a default run measures needs nothing but torch.
STRATEGY_GROUPS: dict[str, Collection[str]] = {"all": STRATEGIES, "peers": PEERS}

# The user's loaders, and no others.
MINE = "mine"


@dataclass(frozen=True)
class Settings:
    """The measurements of a run, and the folder of its checkpoints.

    `real_device` is the device of measurements that need values, times for one; None: they are left out. `own` is the
    user's model, whose name is in `sizes`; `own_strategies` are the user's loaders by their names, which are in
    `strategies`. With `teams` their loads are measured, in all `divisions` of the model, and no others. `stand_in` is
    the memory of the stand-in for a GPU that is loaded to; None: there is none.
    """

    options: Options
    sizes: tuple[str, ...]
    strategies: tuple[str, ...]
    device: str
    real_device: str | None
    dtype: str
    checkpoints: Path
    budget: Budget
    own: UserModel | None
    own_strategies: dict[str, Strategy]
    teams: tuple[RankGroup, ...]
    divisions: tuple[Division, ...]
    stand_in: str | None

    @property
    def sharded(self) -> bool:
        """True where loads by many processes are measured, and no others."""
        return bool(self.teams)

    @property
    def cast(self) -> str:
        """The dtype that floating-point weights end in; "": the checkpoint's."""
        return self.options.cast or ""

    @property
    def has_rank_zero(self) -> bool:
        """True in the process that reports and records the run: others may measure other ranks."""
        return all(team.leads for team in self.teams)


def settings(options: Options) -> Settings:
    """Resolve options on this machine. Raises `ValueError` with one line: what is wrong, and what would be right."""
    device, real_device = _devices(options.device, planned=options.plan)
    kind_of(device).require_counts()
    if options.device_memory is not None and kind_of(device).is_host:
        raise ValueError(f"--device-memory: --device {device} loads into host memory; use --host-memory")
    if options.cache == "cold" and not hasattr(os, "posix_fadvise"):
        raise ValueError("--cache cold: this system cannot evict a file from its page cache; leave out --cache")
    teams = rank_groups(options, device, os.environ)
    model, loaders = user_model(options), user_strategies(options)
    return Settings(
        options=options,
        sizes=(model.label,) if model else options.sizes,
        strategies=_that_load(options, _strategies(options, loaders), loaders),
        device=device,
        real_device=real_device,
        dtype=model.dtype if model else options.dtype,
        checkpoints=options.checkpoint_dir or cache_folder(),
        budget=Budget(options.device_memory, options.host_memory),
        own=model,
        own_strategies=loaders,
        teams=teams,
        divisions=divisions(options, model),
        stand_in=stand_in_memory() if kind_of(device).is_gpu else None,
    )


def _strategies(options: Options, loaders: Mapping[str, Strategy]) -> tuple[str, ...]:
    """Return the strategies that `--strategies` names; all loaders of the user's too, unless it names one of them."""
    known: Collection[str] = SHARDED if options.sharded else (*KNOWN, *loaders)
    groups = {"all": SHARDED} if options.sharded else STRATEGY_GROUPS
    try:
        found = names(known, groups | ({MINE: loaders} if loaders else {}))(options.strategies)
    except ValueError as error:
        others = (KNOWN.keys() | STRATEGY_GROUPS if options.sharded else SHARDED.keys()) - {*known, *groups}
        if of_others := next((one for one in options.strategies.split(",") if one.strip() in others), None):
            whose = "one process; leave out --sharded, or choose from" if options.sharded else "many processes; add"
            which = ", ".join(SHARDED) if options.sharded else "--sharded"
            raise ValueError(f"--strategies {of_others.strip()} is for loads by {whose} {which}") from None
        if MINE in options.strategies and not options.sharded and not loaders:
            raise ValueError(f"--strategies {MINE} is for your own loaders; name one with --loader") from None
        raise ValueError(f"--strategies: {error}") from None
    return found if loaders.keys() & set(found) else (*found, *loaders)


def _that_load(options: Options, named: tuple[str, ...], loaders: Mapping[str, Strategy]) -> tuple[str, ...]:
    """Return the strategies that load the layout of `--layout`. Raises `ValueError` if none of them does."""
    layout = options.layout
    if layout is None:
        return named
    known: dict[str, Strategy] = dict(SHARDED) if options.sharded else {**KNOWN, **loaders}
    if found := tuple(name for name in named if known[name].loads(layout)):
        return found
    able = ",".join(name for name, one in known.items() if one.loads(layout))
    raise ValueError(f"--layout {layout}: {', '.join(named)} cannot load it; use --strategies {able}")


def _devices(asked: str, *, planned: bool) -> tuple[str, str | None]:
    """Return the device on which memory is measured, and that of what needs values; None where nothing has any."""
    if planned:
        plannable = [name for name, kind in KINDS.items() if kind.is_plannable]
        if asked not in ("auto", *plannable):
            known = " or ".join(reversed(plannable))
            raise ValueError(f"--device {asked}: a plan runs on {known}; leave out --device or --plan")
        return ("sim" if asked == "auto" else asked), None
    if asked == "auto" and not torch.cuda.is_available():
        return "sim", "cpu"
    device = "cuda" if asked == "auto" else asked
    kind_of(device).require_present(device)
    return device, device if kind_of(device).has_values else None
