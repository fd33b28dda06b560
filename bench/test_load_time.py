"""Benchmark: how long a load takes until the model's first logits, with the checkpoint in the page cache."""

from functools import partial
from statistics import median

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.cases.case import Case, run_load
from bench.history.record import Record
from bench.meters import device_meter
from bench.meters.clock import LoadClock
from model.checkpoints import Checkpoint
from model.gpt2 import first_logits
from model.verify import check_model

ROUNDS = 3


@pytest.mark.real_device
def test_load_time(case: Case, checkpoint: Checkpoint, benchmark: BenchmarkFixture, record: Record) -> None:
    """Several loads in this process, the model of each one checked; no memory meter runs."""
    clock = LoadClock(
        load=partial(run_load, case.strategy.load, checkpoint),
        use=first_logits,
        check=partial(check_model, checkpoint, torch.device(case.device)),
        meter=device_meter(case.device),
    )
    benchmark.pedantic(clock.load_and_use, setup=clock.finish_round, rounds=ROUNDS, warmup_rounds=1)
    clock.finish_round()
    record.update(
        load_seconds=median(clock.load_seconds[-ROUNDS:]),
        first_logits_seconds=median(clock.first_logits_seconds[-ROUNDS:]),
        forward_seconds=median(clock.forward_seconds[-ROUNDS:]),
        bytes_per_second=record["state_bytes"] / median(clock.whole_load_seconds[-ROUNDS:]),
    )
