"""Benchmark: how long a load takes until the model's first logits, beside what the machine can do at best."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.measure.case import Case
from bench.measure.times import ownership, times, wrong_ownership
from bench.meters.clock import clock_apart
from bench.plugin.failures import ending
from bench.plugin.problems import require
from bench.record.record import Record
from model.checkpoints import Checkpoint


@pytest.mark.real_device
def test_load_time(
    case: Case, rehearsal: Checkpoint, checkpoint: Checkpoint, benchmark: BenchmarkFixture, record: Record
) -> None:
    """Several loads in one process of their own, the model of each one checked; no memory meter runs."""
    clock_of = case.clock(case.strategy.load, checkpoint, rehearsal)
    with ending(case), clock_apart(clock_of, case.limit_seconds, case.judge(checkpoint)) as clock:
        benchmark.pedantic(clock.load_and_use, setup=clock.begin_round, rounds=case.rounds)
        clock.finish_round()
        readings = clock.readings()
    require(wrong_ownership(readings, record.ownership))
    record.ownership = ownership(readings, record.ownership)
    found = times(readings, record.checkpoint_bytes or 0, mapped=record.ownership == "mapped")
    record.update(case.as_measured(found))
