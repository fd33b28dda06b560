"""Planned ranks with limited memory: each load fits its devices and nodes, or does not, as its peaks say."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.measure.budgets import as_fields, planned_empty_bytes
from bench.meters.budget import Budget
from bench.plugin.failures import failures_reported
from bench.record.record import Record
from bench.sharded.metered_ranks import MeteredRanks, RankPlans
from bench.sharded.rank_budgets import planned_outcome
from bench.sharded.rendezvous import RankRendezvous
from bench.sharded.sharded_case import ShardedCase
from model.checkpoints.checkpoint import Checkpoint


@pytest.mark.sharded
@pytest.mark.ranks
@pytest.mark.budget
def test_sharded_budget(
    case: ShardedCase,
    rehearsal: Checkpoint,
    checkpoint: Checkpoint,
    rendezvous: RankRendezvous,
    budget: Budget,
    benchmark: BenchmarkFixture,
    record: Record,
    rank_plans: RankPlans,
) -> None:
    """Record whether a planned load fits or dies. It is planned again only if its peaks were not measured."""
    load = MeteredRanks(case, rendezvous, checkpoint, rehearsal)
    with failures_reported(case):
        measured = benchmark.pedantic(rank_plans.measured, args=(load,))
    record.update(as_fields(budget, planned_outcome(case, measured, budget, planned_empty_bytes())))
