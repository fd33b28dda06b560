"""The peak memory of each process of a sharded load equals the bound of its strategy, from both sides."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.measure.checks import Growth, findings
from bench.plugin.failures import failures_reported
from bench.plugin.problems import fail_for
from bench.record.record import Record
from bench.sharded.metered_ranks import MeteredRanks, RankPlans
from bench.sharded.rendezvous import RankRendezvous
from bench.sharded.sharded_case import ShardedCase
from model.checkpoints.checkpoint import Checkpoint


@pytest.mark.sharded
@pytest.mark.ranks
def test_sharded_peak_memory(
    case: ShardedCase,
    rehearsal: Checkpoint,
    checkpoint: Checkpoint,
    rendezvous: RankRendezvous,
    benchmark: BenchmarkFixture,
    record: Record,
    find_regressions: Growth,
    rank_plans: RankPlans,
    explain: bool,
) -> None:
    """Load in new processes, one a rank: every weight is right, every peak at its bound, and no memory leaks."""
    load = MeteredRanks(case, rendezvous, checkpoint, rehearsal)
    with failures_reported(case):
        measured = benchmark.pedantic(rank_plans.measured, args=(load,))
        found = findings(load, record, measured, find_regressions, explain=explain)
    fail_for(found)
