"""Benchmark: how long a load takes until the model's first logits, beside what the machine can do at best."""

from statistics import median, median_low

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.measure.case import Case
from bench.meters.clock import Readings, remote_clock
from bench.plugin.failures import ending
from bench.record.record import Fields, Record
from model.checkpoints.checkpoint import Checkpoint


@pytest.mark.real_device
def test_load_time(
    case: Case, rehearsal: Checkpoint, checkpoint: Checkpoint, benchmark: BenchmarkFixture, record: Record
) -> None:
    """Several loads in one process of their own, the model of each one checked; no memory meter runs."""
    clock_of = case.clock(case.strategy.load, checkpoint, rehearsal)
    with ending(case), remote_clock(clock_of, case.limit_seconds, case.judge(checkpoint)) as clock:
        benchmark.pedantic(clock.load_and_use, setup=clock.begin_round, rounds=case.rounds)
        clock.finish_round()
        readings = clock.readings()
    record.ownership = ownership(readings, record.ownership)
    found = times(readings, record.checkpoint_bytes or 0, mapped=record.ownership == "mapped")
    record.update(case.as_measured(found))


def ownership(readings: Readings, stated: str | None) -> str | None:
    """Where the weights were seen to end. Fails if they are stated to end elsewhere: times would be of that."""
    seen = {None: stated, True: "mapped", False: "owned"}[readings.mapped[-1]]
    if stated not in (None, seen):
        pytest.fail(f"the weights end {seen}, where its row in the table of strategies says {stated}", pytrace=False)
    return seen


def times(readings: Readings, checkpoint_bytes: int, *, mapped: bool) -> Fields:
    """What was read off a clock, in a record's fields: medians of the rounds, limits and loads in turn.

    A mapped model is charged for what its first forward pass fetches. One that owns its weights has fetched them, as
    its peaks tell: what its first pass takes longer than a later one is noise, and would be a quarter of the load.
    """
    limit = median(filter(None, readings.roofline_bytes_per_second))
    rates = [
        checkpoint_bytes / seconds for seconds in (readings.whole_load_seconds if mapped else readings.load_seconds)
    ]
    return {
        "load_seconds": median(readings.load_seconds),
        "first_logits_seconds": median(readings.first_logits_seconds),
        "forward_seconds": median(readings.forward_seconds),
        "bytes_per_second": median(rates),
        "limit_bytes_per_second": limit,
        "limit_fraction": median(rates) / limit,
        "minor_faults": median_low(readings.minor_faults),
        "major_faults": median_low(readings.major_faults),
    }
