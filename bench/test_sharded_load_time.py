"""Benchmark: how long many processes take to load a model together, until all of them have its first logits."""

from collections.abc import Mapping
from statistics import median

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.meters.clock import Readings
from bench.plugin.failures import ending
from bench.record.record import Fields, Record
from bench.sharded.measure_ranks import clocks_apart
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
    meeting: RankRendezvous,
    benchmark: BenchmarkFixture,
    record: Record,
) -> None:
    """Several loads in one process a rank, every shard of the model checked after each one; no memory meter runs."""
    clocks_of = case.rank_clocks(meeting, checkpoint, rehearsal)
    with ending(case), clocks_apart(meeting, clocks_of, case.limit_seconds) as clocks:
        benchmark.pedantic(clocks.load_and_use, setup=clocks.begin_round, rounds=case.rounds)
        clocks.finish_round()
        readings = clocks.readings()
    record.update(case.as_measured(slowest(readings, case.state_bytes)))


def slowest(readings: Mapping[int, Readings], state_bytes: int) -> Fields:
    """What was read off all clocks, in a record's fields: medians of rounds, each as long as its slowest rank."""

    def seconds(name: str) -> list[float]:
        return [max(of_a_round) for of_a_round in zip(*(getattr(one, name) for one in readings.values()), strict=True)]

    load_seconds = seconds("load_seconds")
    return {
        "load_seconds": median(load_seconds),
        "first_logits_seconds": median(seconds("first_logits_seconds")),
        "bytes_per_second": state_bytes / median(load_seconds),
        "per_rank": [
            {"rank": rank, "load_seconds": median(one.load_seconds), "minor_faults": median(one.minor_faults)}
            for rank, one in readings.items()
        ],
    }
