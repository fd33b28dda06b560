"""Recorded benchmarks that belong to a run: those that it would measure."""

from pathlib import Path

from bench.meters.budget import Budget
from bench.plugin.settings import Settings
from bench.record.record import Record
from bench.sharded.recipes import SHARDED
from bench.strategies import PEERS, STRATEGIES

# The folder of runs with something of the user's, in the folder that they are started in.
USERS_RECORDS = "weight-loading"


def records_folder(root: Path, caller: Path, chosen: Settings) -> Path:
    """Return the folder that a run is recorded in, and compared with.

    Runs of the suite's own models and strategies, started in its checkout, are kept there, in `results/`. All others
    are kept in the folder of the `caller`: the user's models and loaders have a history of their own.
    """
    if caller.is_relative_to(root) and not (chosen.own or chosen.own_strategies):
        return root / "results"
    return caller / USERS_RECORDS


def belongs(chosen: Settings, record: Record) -> bool:
    """Return whether a recorded benchmark is one of those of these settings.

    The strategies determine which rooflines are measured: unless all strategies are measured, no roofline is missed.
    On a stand-in for a GPU no time is.
    """
    timed = record.bytes_per_second is not None
    suite = SHARDED if chosen.sharded else STRATEGIES
    every_strategy = set(chosen.strategies) >= suite.keys() | chosen.own_strategies.keys()
    return (
        record.size in chosen.sizes
        and is_of_model(chosen, record)
        and record.loader == _loader(chosen, record)
        and record.device == (chosen.real_device if timed else chosen.device)
        and not (timed and chosen.stand_in)
        # The first records do not say that nothing of them was planned.
        and (record.dtype, record.cast or "", record.cache, bool(record.planned))
        == (chosen.dtype, chosen.cast, chosen.options.cache, chosen.options.plan)
        and record.asked_layout == chosen.options.layout
        and _has_ranks(chosen, record)
        # One that is in no table any more may be missed, but not a peer that nobody asked for.
        and (record.strategy in chosen.strategies or (every_strategy and record.strategy not in PEERS))
        and _has_budget(chosen, record)
    )


def is_of_model(chosen: Settings, record: Record) -> bool:
    """Return whether a recorded benchmark loads the model that is measured, and not another one of the same name."""
    model = (chosen.own.factory.display_name, chosen.own.state_digest) if chosen.own else (None, None)
    # The first records do not have these fields.
    return (record.model, record.state_digest) == model


def _loader(chosen: Settings, record: Record) -> str | None:
    """Return the user's loader that has the name of a recorded strategy."""
    own = chosen.own_strategies.get(record.strategy or "")
    return own.loader if own else None


def _has_ranks(chosen: Settings, record: Record) -> bool:
    """Return whether the run divides a model among as many ranks as the record, and in the same way."""
    ranks = record.ranks
    if ranks is None:
        return not chosen.sharded
    return ranks in {team.count for team in chosen.teams} and record.parallelism in chosen.options.parallelism


def _has_budget(chosen: Settings, record: Record) -> bool:
    """Return whether the run has the record's budget, and its search for the smallest one, if it had one."""
    budget = Budget(record.device_budget_bytes, record.host_budget_bytes)
    smallest = record.smallest_tolerance_bytes is not None
    return (not budget or budget == chosen.budget) and (not smallest or chosen.options.find_minimum)
