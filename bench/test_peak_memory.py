"""The peak memory of a load equals the bound of its strategy, from both sides."""

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
    """Load in a new process: every weight is right, every peak at its bound, not above history, no memory leaks."""
    load = MeteredLoad(case, checkpoint, rehearsal)
    load.prepare()
    with failures_reported(case):
        measured = benchmark.pedantic(load.measure)
        found = findings(load, record, measured, find_regressions, explain=explain)
    fail_for(found)
