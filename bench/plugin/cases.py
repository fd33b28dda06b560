"""Cases of a run, made from its settings. `real`: the cases that need tensor values."""

from bench.conformance.conformance_case import ConformanceCase
from bench.conformance.properties import columns
from bench.measure.case import Case
from bench.measure.judging import judges_whole
from bench.measure.refusals import skip_reason
from bench.measure.roofline_case import RooflineCase
from bench.plugin.settings import Settings
from bench.sharded.sharded_case import ShardedCase
from bench.strategies import KNOWN


def cases(chosen: Settings, *, real: bool) -> list[Case]:
    """List the measurements of one process, size by size."""
    device = chosen.real_device if real else chosen.device
    if chosen.sharded or device is None:
        return []
    return [
        Case(
            *_named(chosen, strategy, size, device),
            *(chosen.own, chosen.own_strategies.get(strategy), chosen.cast, chosen.stand_in),
            chosen.options.layout or "",
        )
        for size in chosen.sizes
        for strategy in chosen.strategies
    ]


def sharded_cases(chosen: Settings, *, real: bool) -> list[ShardedCase]:
    """List the measurements of many processes, size by size."""
    device = chosen.real_device if real else chosen.device
    if device is None:
        return []
    return [
        ShardedCase(
            *_named(chosen, strategy, size, device),
            *(chosen.own, None, chosen.cast, chosen.stand_in),
            asked_layout=chosen.options.layout or "",
            division=division,
            group=team,
        )
        for size in chosen.sizes
        for team in chosen.teams
        for division in chosen.divisions
        for strategy in chosen.strategies
    ]


def _named(chosen: Settings, strategy: str, size: str, device: str) -> tuple[str, str, str, str, bool, str]:
    """Return what every case has, in the order of its fields."""
    return strategy, size, device, chosen.dtype, chosen.options.plan, chosen.options.cache


def judged_cases(chosen: Settings) -> list[Case]:
    """List the loads that are judged before anything is measured: all of the user's model, and by the user's loaders.

    With a large model, a strategy of the suite is judged when it is measured.
    """
    return [
        case
        for case in cases(chosen, real=True)
        if case.user_strategy or (case.strategy.peer is None and judges_whole(case))
    ]


def roofline_cases(chosen: Settings) -> list[RooflineCase]:
    """List the rooflines, each kind once a size; none on a stand-in for a GPU, which has no times."""
    kinds: dict[str, RooflineCase] = {}
    for case in cases(chosen, real=True):
        roofline = RooflineCase(**vars(case))
        if skip_reason(case) is None and case.stand_in is None:
            kinds.setdefault(str(roofline), roofline)
    return list(kinds.values())


def conformance_cases(chosen: Settings) -> list[ConformanceCase]:
    """List the cells of the conformance table, strategy by strategy; none where nothing has values.

    Where the user's model is measured, the suite's strategies load other models only with `--conformance`.
    """
    device, known = chosen.real_device, KNOWN | chosen.own_strategies
    if chosen.sharded or device is None:
        return []
    tolerated = chosen.options.tolerate or ()
    own_only = chosen.own is not None and not chosen.options.conformance
    tried = [name for name in chosen.strategies if name in chosen.own_strategies or not own_only]
    return [
        ConformanceCase(strategy, row, device, chosen.own_strategies.get(strategy), is_tolerated=row in tolerated)
        for strategy in tried
        for row in columns(known[strategy])
    ]
