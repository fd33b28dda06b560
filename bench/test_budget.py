"""Promise: with so much memory and no more, those loads come to their end that theory lets, and no others."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn

from bench.measure.budgets import is_to_live, trial_of
from bench.measure.case import Case
from bench.meters import kind_of
from bench.meters.budget import Budget, BudgetedLoad, BudgetOutcome, HostTooSmall, smallest
from bench.meters.cgroup import NoCgroup
from bench.meters.page_cache import StillCached
from bench.plugin.failures import ending
from bench.record.record import Fields, Record
from model.checkpoints.checkpoint import Checkpoint
from model.verification.verify import check_outputs

# What the kernel reads ahead of a mapped file on a busy disk is the load's too: with 24 MiB it was killed now and then,
# with 32 MiB never.
LEAST_ROOM_BYTES = 32 * 2**20

# How near the smallest budget is come to: a part of the model's bytes, and so many at least.
TOLERANCE_OF_STATE, TOLERANCE_BYTES = 0.01, 2 * 2**20
# Beyond what any load takes: where the search begins.
MOST_OF_STATE, MOST_BYTES = 4, 256 * 2**20


@pytest.mark.real_device
@pytest.mark.not_in_table
@pytest.mark.limited
def test_short_memory(case: Case, rehearsal: Checkpoint, checkpoint: Checkpoint) -> None:
    """With room for half of the model: who maps it answers a prompt, and who has to hold it is killed."""
    room = case.specification.footprint.state_bytes // 2
    if room < LEAST_ROOM_BYTES:
        pytest.skip(f"{case.size} is too small to tell: half of it is less than what is read ahead of a mapped file")
    trial = trial_of(case, checkpoint, rehearsal)
    # Every bit is compared where memory is not short: here that would read all of the file twice more, from the disk.
    trial = replace(trial, job=replace(trial.job, check=partial(_check_answer, checkpoint)))
    with ending(case):
        budget = Budget(host_bytes=trial.empty_bytes() + room)
        outcome = trial.under(budget)
    require_theory(case, budget, outcome)


def _check_answer(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Raise `WrongModel` unless the model computes what the saved one did."""
    check_outputs(checkpoint, checkpoint.specification.architecture.outputs(model))


@pytest.mark.budget
@pytest.mark.limited
def test_budget(
    case: Case,
    rehearsal: Checkpoint,
    checkpoint: Checkpoint,
    budget: Budget,
    benchmark: BenchmarkFixture,
    record: Record,
) -> None:
    """Who lives and who dies is what a user wants to know; that it is not as theory says is a failure."""
    with ending(case):
        outcome: BudgetOutcome = benchmark.pedantic(trial_of(case, checkpoint, rehearsal).under, args=(budget,))
    record.device_budget_bytes, record.host_budget_bytes = budget.device_bytes, budget.host_bytes
    record.fits, record.fate = outcome.fits, outcome.failure_reason or None
    require_theory(case, budget, outcome)


@pytest.mark.minimum
def test_smallest_budget(
    case: Case, rehearsal: Checkpoint, checkpoint: Checkpoint, benchmark: BenchmarkFixture, record: Record
) -> None:
    """The smallest memory that a load lives with, of the device and of the host, each with all of the other."""
    trial, state = trial_of(case, checkpoint, rehearsal), case.specification.footprint.state_bytes
    tolerance = max(TOLERANCE_BYTES, int(TOLERANCE_OF_STATE * state))
    with ending(case):
        found: Fields = benchmark.pedantic(smallest_budgets, args=(trial, state, tolerance, case.device))
    record.update(found | {"smallest_tolerance_bytes": tolerance})


def smallest_budgets(trial: BudgetedLoad, state_bytes: int, tolerance: int, device: str) -> Fields:
    """In a record's fields. Raises as `Trial.under` does, where nothing can be limited."""
    most, found = MOST_OF_STATE * state_bytes + MOST_BYTES, {}
    if not kind_of(device).is_host:
        found["smallest_device_bytes"] = smallest(
            lambda count: trial.under(Budget(device_bytes=count)).fits, 0, most, tolerance
        )
    empty = trial.empty_bytes()
    try:
        found["smallest_host_bytes"] = smallest(_lives_on_host(trial), empty, empty + most, tolerance)
    except (NoCgroup, StillCached):
        if not found:
            raise
    return found


def _lives_on_host(trial: BudgetedLoad) -> Callable[[int], bool]:
    def lives(count: int) -> bool:
        try:
            return trial.under(Budget(host_bytes=count)).fits
        except HostTooSmall:
            return False

    return lives


def require_theory(case: Case, budget: Budget, outcome: BudgetOutcome) -> None:
    """Fail unless the load lived, or died, as its bounds say, where they do."""
    expected = is_to_live(case, budget, outcome.empty_bytes)
    if expected and not outcome.fits:
        pytest.fail(f"by its bounds it has to live: {outcome.failure_reason}", pytrace=False)
    if expected is False and outcome.fits:
        pytest.fail("it lived, where by its bounds it takes more: a bound, or the limit, is wrong", pytrace=False)
