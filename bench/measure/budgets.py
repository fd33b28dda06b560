"""Loads with a memory budget: whether their bounds fit it, and the smallest budget that works."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

from bench.measure.case import TIMEOUT_SECONDS, Case
from bench.measure.checks import FailedCheck
from bench.measure.expected import bound_bytes
from bench.measure.jobs import load_job
from bench.measure.terms import host_slack_bytes
from bench.meters import kind_of
from bench.meters.budget import (
    Budget,
    BudgetedLoad,
    BudgetOutcome,
    HostTooSmall,
    empty_process_bytes,
    smallest,
)
from bench.meters.cgroup import NoCgroup
from bench.meters.page_cache import StillCached
from bench.record.record import Fields
from model.byte_sizes import short_size
from model.checkpoints.checkpoint import Checkpoint

# What an allocator takes for what is asked of it, at most.
MOST_RESERVED, SEGMENTS_BYTES = 1.25, 64 * 2**20

# How near the smallest budget is come to: a part of the model's bytes, and so many at least.
TOLERANCE_OF_STATE, TOLERANCE_BYTES = 0.01, 2 * 2**20
# Beyond what any load takes: where the search begins.
MOST_OF_STATE, MOST_BYTES = 4, 256 * 2**20


def budgeted_load(case: Case, checkpoint: Checkpoint, rehearsal: Checkpoint) -> BudgetedLoad:
    """Return the load of a case, to be tried under budgets."""
    job = load_job(case, case.strategy.load, checkpoint, rehearsal)
    return BudgetedLoad(job, checkpoint.files, case.specification.footprint.sizes, case.timeout_seconds)


def tried(case: Case, checkpoint: Checkpoint, rehearsal: Checkpoint, budget: Budget) -> BudgetOutcome:
    """Load a case under a budget. What a plan takes of the host is counted, and compared with the budget after it.

    Raises as `BudgetedLoad.under` does.
    """
    load = budgeted_load(case, checkpoint, rehearsal)
    if not case.planned:
        return load.under(budget)
    outcome = load.under(replace(budget, host_bytes=None))
    return _on_host(outcome, budget.host_bytes) if outcome.fits and budget.host_bytes is not None else outcome


def _on_host(outcome: BudgetOutcome, host_bytes: int) -> BudgetOutcome:
    """Return the outcome of a plan that fits its device, with the memory of a host of so many bytes."""
    empty, taken = planned_empty_bytes(), outcome.planned_bytes or 0
    reason = (
        f"out of host memory: the load takes {short_size(taken)} and an empty process {short_size(empty)}, of "
        f"{short_size(host_bytes)}"
    )
    fits = taken + empty <= host_bytes
    return replace(outcome, fits=fits, failure_reason="" if fits else reason, empty_bytes=empty)


@cache
def planned_empty_bytes() -> int:
    """Return the private bytes of a process that has loaded nothing, the same for all plans of a run."""
    return empty_process_bytes(TIMEOUT_SECONDS)


def expected_to_fit(case: Case, budget: Budget, empty_bytes: int) -> bool | None:
    """Return True if a load has to fit into a budget, False if it has to fail; None: theory does not say.

    `empty_bytes` is what its process holds before. What is asked of a device is exact, but not what its allocator takes
    for that. Of a loader of the user's only the most is known, and of what the user's model computes nothing.
    """
    fits, fails = case.strategy.is_stated, False
    if budget.host_bytes is not None:
        takes, room = bound_bytes(case, "host_private_peak_bytes"), budget.host_bytes - empty_bytes
        footprint = case.specification.footprint
        slack = host_slack_bytes(footprint.state_bytes, footprint.tensors)
        fails |= takes is not None and takes - slack > room
        fits &= takes is not None and takes + slack <= room and not case.user_model
    if budget.device_bytes is not None:
        takes = bound_bytes(case, "device_requested_peak_bytes")
        fails |= takes is not None and takes > budget.device_bytes
        fits &= takes is not None and takes * MOST_RESERVED + SEGMENTS_BYTES <= budget.device_bytes
    return False if fails and case.strategy.is_stated else True if fits else None


def as_fields(budget: Budget, outcome: BudgetOutcome) -> Fields:
    """Return a budget, and how a load ended with it, as fields of a record."""
    return {
        "device_budget_bytes": budget.device_bytes,
        "host_budget_bytes": budget.host_bytes,
        "fits": outcome.fits,
        "fate": outcome.failure_reason or None,
    }


def unexpected(case: Case, budget: Budget, outcome: BudgetOutcome) -> Sequence[FailedCheck]:
    """Return a problem if the load fitted, or failed, where its bounds say the other."""
    expected = expected_to_fit(case, budget, outcome.empty_bytes)
    if expected and not outcome.fits:
        return [FailedCheck(f"it ran out of memory, and by its bounds it fits: {outcome.failure_reason}")]
    if expected is False and outcome.fits:
        return [FailedCheck("it finished, and by its bounds it does not fit: a bound or the limit is wrong")]
    return []


def smallest_budgets(load: BudgetedLoad, state_bytes: int, device: str) -> Fields:
    """Return the smallest budgets that a load finishes with, and their tolerance, by bisection.

    Raises as `BudgetedLoad.under` does, where nothing can be limited.
    """
    tolerance = max(TOLERANCE_BYTES, int(TOLERANCE_OF_STATE * state_bytes))
    most, found = MOST_OF_STATE * state_bytes + MOST_BYTES, {}
    if not kind_of(device).is_host:
        found["smallest_device_bytes"] = smallest(
            lambda count: load.under(Budget(device_bytes=count)).fits, 0, most, tolerance
        )
    empty = load.empty_bytes()
    try:
        found["smallest_host_bytes"] = smallest(_fits_on_host(load), empty, empty + most, tolerance)
    except (NoCgroup, StillCached):
        if not found:
            raise
    return found | {"smallest_tolerance_bytes": tolerance}


def _fits_on_host(load: BudgetedLoad) -> Callable[[int], bool]:
    def fits(count: int) -> bool:
        try:
            return load.under(Budget(host_bytes=count)).fits
        except HostTooSmall:
            return False

    return fits
