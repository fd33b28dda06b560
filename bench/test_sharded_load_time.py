"""The time of a load by many processes, until all of them have the model's first output."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.measure.expected import as_measured
from bench.plugin.failures import failures_reported
from bench.record.record import Record
from bench.sharded.measure_ranks import clocks_apart
from bench.sharded.rank_jobs import rank_clocks
from bench.sharded.rank_times import slowest
from bench.sharded.rendezvous import RankRendezvous
from bench.sharded.sharded_case import ShardedCase
from model.checkpoints.checkpoint import Checkpoint


@pytest.mark.sharded
@pytest.mark.ranks
@pytest.mark.real_device
def test_sharded_load_time(
    case: ShardedCase,
    rehearsal: Checkpoint,
    checkpoint: Checkpoint,
    rendezvous: RankRendezvous,
    benchmark: BenchmarkFixture,
    record: Record,
) -> None:
    """Time several loads in one process a rank, and check every shard after each one. No memory meter runs."""
    clocks_of = rank_clocks(case, rendezvous, checkpoint, rehearsal)
    with failures_reported(case), clocks_apart(rendezvous, clocks_of, case.timeout_seconds) as clocks:
        benchmark.pedantic(clocks.load_and_use, setup=clocks.begin_round, rounds=case.rounds)
        clocks.finish_round()
        readings = clocks.readings()
    record.update(as_measured(case, slowest(readings, case.state_bytes)))
