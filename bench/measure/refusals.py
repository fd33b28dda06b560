"""Refusals: the reasons why a case cannot be measured, such as properties of the user's model."""

from collections.abc import Mapping
from functools import cache, singledispatch

from bench.conformance.traits import OBSTACLES, properties_of
from bench.measure.case import Case
from bench.measure.peer_refusals import misfit
from bench.strategies import STRATEGIES, Strategy
from bench.strategies.reading.skeleton import compiled_modules, initialise, skeleton
from model.user.user_model import UserModel


@singledispatch
def skip_reason(case: Case) -> str | None:
    """Return why it cannot be measured here; None if it can, as far as that is known without trying."""
    peer = case.strategy.peer
    if peer is None:
        return None
    if reason := peer.skip_reason(case.device, planned=case.planned):
        return reason
    if case.cast and not case.strategy.takes("dtype"):
        return f"{case.strategy_name} cannot cast; leave out --cast"
    if case.user_model and case.user_model.missing and not case.strategy.takes("missing"):
        return f"{case.strategy_name} loads whole checkpoints only; leave out --allow-missing"
    return misfit(case.user_model, case.strategy, case.specification) if case.user_model else None


def states_refusal(case: Case) -> bool:
    """Return True if the strategy cannot load the user's model, by a property that its row in the table names.

    Or since there is no skeleton of the model, where the strategy wants one.
    """
    return bool(obstacles(case, case.strategy))


def remedy(case: Case) -> str:
    """Return what to do where the strategy refuses the user's model: use another of the suite, or change the model."""
    names = able(case)
    use = f"use {', '.join(names[:-1])}{' or ' if names[1:] else ''}{names[-1]}" if names else None
    changes = [OBSTACLES[one] for one in sorted(obstacles(case, case.strategy))]
    return ", or ".join(filter(None, (use, *changes)))


@singledispatch
def able(case: Case) -> list[str]:
    """Return the strategies of the suite that nothing of the user's model keeps from loading it, by their rows."""
    return [name for name, strategy in STRATEGIES.items() if not obstacles(case, strategy)]


def obstacles(case: Case, strategy: Strategy) -> set[str]:
    """Return what of the user's model, of `OBSTACLES`, keeps a strategy from loading it, by its row in the table."""
    if case.user_model is None or strategy.is_users:
        return set()
    model = case.user_model.skeleton()
    found = set(properties(case.user_model)) & strategy.refused(case.device)
    if strategy.builds:
        return found
    if compiled_modules(model):
        return found | {"scripted"}
    return found | _obstacles_of_skeleton(case.user_model)


@cache
def properties(model: UserModel) -> Mapping[str, list[str]]:
    """Return the properties of the user's model, looked up once in a run; see `properties_of`."""
    return properties_of(model.skeleton())


@cache
def _obstacles_of_skeleton(model: UserModel) -> frozenset[str]:
    """Return what keeps a strategy from a skeleton of the user's model, or from starting what its checkpoint lacks."""
    obstacle = "skeleton"
    try:
        built = skeleton(model.build)
        obstacle = "uninitialised"
        initialise(built, model.missing, "meta")
    except Exception:  # noqa: BLE001 - whatever the model's code raises
        return frozenset((obstacle,))
    return frozenset()
