"""The time of a load until the model's first output, beside the fastest possible one on this machine."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.measure.case import Case
from bench.measure.expected import as_measured
from bench.measure.jobs import clock_of, outside_judge
from bench.measure.time_fields import ownership, times, wrong_ownership
from bench.meters.clock import remote_clock
from bench.plugin.failures import failures_reported
from bench.plugin.problems import require
from bench.record.record import Record
from model.checkpoints.checkpoint import Checkpoint


@pytest.mark.real_device
def test_load_time(
    case: Case, rehearsal: Checkpoint, checkpoint: Checkpoint, benchmark: BenchmarkFixture, record: Record
) -> None:
    """Time several loads in one new process, and check the model of each one. No memory meter runs."""
    make, judge = clock_of(case, case.strategy.load, checkpoint, rehearsal), outside_judge(case, checkpoint)
    with failures_reported(case), remote_clock(make, case.timeout_seconds, judge) as clock:
        benchmark.pedantic(clock.load_and_use, setup=clock.begin_round, rounds=case.rounds)
        clock.finish_round()
        readings = clock.readings()
    require(wrong_ownership(readings, record.ownership))
    record.ownership = ownership(readings, record.ownership)
    found = times(readings, record.checkpoint_bytes or 0, mapped=record.ownership == "mapped")
    record.update(as_measured(case, found))
