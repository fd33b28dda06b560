"""Promise: the peak memory of a load is what theory says of its strategy, no more and no less."""

from pytest_benchmark.fixture import BenchmarkFixture

from bench.measure.case import Case
from bench.measure.checks import Growth, findings
from bench.measure.metered_load import MeteredLoad
from bench.plugin.failures import failures_reported
from bench.plugin.problems import fail_for
from bench.record.record import Record
from model.checkpoints.checkpoint import Checkpoint


def test_peak_memory(
    case: Case,
    rehearsal: Checkpoint,
    checkpoint: Checkpoint,
    benchmark: BenchmarkFixture,
    record: Record,
    find_regressions: Growth,
    explain: bool,
) -> None:
    """In a fresh process: every weight right, every peak at its bound and not above history, nothing left behind."""
    load = MeteredLoad(case, checkpoint, rehearsal)
    load.prepare()
    with failures_reported(case):
        measured = benchmark.pedantic(load.measure)
        found = findings(load, record, measured, find_regressions, explain=explain)
    fail_for(found)
