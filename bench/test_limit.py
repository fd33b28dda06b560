"""The fastest possible speed of this machine for the bytes of a checkpoint: loads are compared with it."""

from statistics import median

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.measure.jobs import roofline
from bench.measure.roofline_case import RooflineCase
from bench.record.record import Record
from model.checkpoints.checkpoint import Checkpoint


@pytest.mark.real_device
@pytest.mark.limit
def test_limit(case: RooflineCase, checkpoint: Checkpoint, benchmark: BenchmarkFixture, record: Record) -> None:
    """Measure the limit alone; it is also measured beside every timed load."""
    rates: list[float] = []
    limit = roofline(case, checkpoint)
    benchmark.pedantic(lambda: rates.append(limit.bytes_per_second()), setup=limit.settle, rounds=case.rounds)
    rate = median(rates)
    record.bytes_per_second = record.limit_bytes_per_second = rate
