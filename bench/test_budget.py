"""Loads with limited memory: each one fits, or runs out of memory, as theory says."""

from dataclasses import replace
from functools import partial

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn

from bench.measure.budgets import as_fields, budgeted_load, smallest_budgets, tried, unexpected
from bench.measure.case import Case
from bench.meters.budget import Budget, BudgetOutcome
from bench.plugin.failures import failures_reported
from bench.plugin.problems import require
from bench.record.record import Record
from model.checkpoints.checkpoint import Checkpoint
from model.verification.verify import check_outputs

# What the kernel reads ahead of a mapped file on a busy disk is the load's too: with 24 MiB it was killed now and then,
# with 32 MiB never.
LEAST_ROOM_BYTES = 32 * 2**20


@pytest.mark.real_device
@pytest.mark.not_in_table
@pytest.mark.limited
def test_short_memory(case: Case, rehearsal: Checkpoint, checkpoint: Checkpoint) -> None:
    """Load with host memory for half of the model: a mapped load answers a prompt, one that copies is killed."""
    room = case.specification.footprint.state_bytes // 2
    if room < LEAST_ROOM_BYTES:
        pytest.skip(f"{case.size} is too small to tell: half of it is less than what is read ahead of a mapped file")
    load = budgeted_load(case, checkpoint, rehearsal)
    # Every bit is compared where memory is not short: here that would read all of the file twice more, from the disk.
    load = replace(load, job=replace(load.job, check=partial(_check_answer, checkpoint)))
    with failures_reported(case):
        budget = Budget(host_bytes=load.empty_bytes() + room)
        outcome = load.under(budget)
    require(unexpected(case, budget, outcome))


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
    """Record whether a load fits or dies. The test fails where theory says the other."""
    with failures_reported(case):
        outcome: BudgetOutcome = benchmark.pedantic(tried, args=(case, checkpoint, rehearsal, budget))
    record.update(as_fields(budget, outcome))
    require(unexpected(case, budget, outcome))


@pytest.mark.minimum
def test_smallest_budget(
    case: Case, rehearsal: Checkpoint, checkpoint: Checkpoint, benchmark: BenchmarkFixture, record: Record
) -> None:
    """Find the smallest device memory and host memory that a load works with, each with all of the other."""
    load, state_bytes = budgeted_load(case, checkpoint, rehearsal), case.specification.footprint.state_bytes
    with failures_reported(case):
        record.update(benchmark.pedantic(smallest_budgets, args=(load, state_bytes, case.device)))
