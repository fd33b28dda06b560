"""Benchmark: how long a load takes until the model's first logits, with the checkpoint in the page cache."""

from statistics import median

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.cases.case import Case
from bench.history.record import Record
from bench.meters.clock import clock_apart
from bench.meters.process import LoadEnded
from model.checkpoints import Checkpoint

ROUNDS = 3


@pytest.mark.real_device
def test_load_time(case: Case, checkpoint: Checkpoint, benchmark: BenchmarkFixture, record: Record) -> None:
    """Several loads in one process of their own, the model of each one checked; no memory meter runs."""
    try:
        with clock_apart(case.clock(case.strategy.load, checkpoint), case.limit_seconds) as clock:
            benchmark.pedantic(clock.load_and_use, setup=clock.finish_round, rounds=ROUNDS, warmup_rounds=1)
            clock.finish_round()
            seconds = clock.seconds()
    except LoadEnded as error:
        raise pytest.fail.Exception(error.told, pytrace=False) from None
    record.update(
        load_seconds=median(seconds.load[-ROUNDS:]),
        first_logits_seconds=median(seconds.first_logits[-ROUNDS:]),
        forward_seconds=median(seconds.forward[-ROUNDS:]),
        bytes_per_second=record["state_bytes"] / median(seconds.whole_load[-ROUNDS:]),
    )
