"""Promise: the peak memory of a load is what theory says of its strategy, no more and no less."""

from collections.abc import Callable
from dataclasses import asdict, replace

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.measure.bounds import peak_breaches, peak_checks
from bench.measure.case import Case
from bench.meters.allocations import Alive
from bench.meters.child import RetainedMemory
from bench.meters.measure import Measurement, measure
from bench.meters.outside_memory import OutsideMemory
from bench.meters.page_cache import evict
from bench.plugin.failures import ending
from bench.plugin.regression import MemoryRegression
from bench.record.record import Fields, Record, ratio
from bench.report.alive import alive_lines
from model.checkpoints.checkpoint import Checkpoint

# What a dropped model may leave behind on the host: Python's own objects and caches, a few KB a tensor. On the
# device it may leave nothing.
LEAK_SLACK_BYTES = 4 * 2**20
LEAK_SLACK_OF_STATE = 0.002
# 1 to 2 KB a tensor with 4,000 tensors, and 4 KB with the books of a simulated device.
LEAK_SLACK_BYTES_PER_TENSOR = 8 * 2**10
# Of shared memory: OpenMP has a page.
SHARED_SLACK_BYTES = 2**16


def test_peak_memory(
    case: Case,
    rehearsal: Checkpoint,
    checkpoint: Checkpoint,
    benchmark: BenchmarkFixture,
    record: Record,
    find_regressions: Callable[[Record], dict[str, str]],
    explain: bool,
) -> None:
    """In a fresh process: every weight right, every peak at its bound and not above history, nothing left behind."""
    # What the suite's own recipes keep is judged after one load; of others it is worth knowing whether it grows.
    foreign = case.strategy.peer is not None or case.strategy.is_own
    job = replace(case.job(case.strategy.load, checkpoint, rehearsal), again=foreign and not case.planned)
    if case.cache == "cold":
        evict(checkpoint.files)
    with ending(case):
        measurement = benchmark.pedantic(measure, args=(job, case.limit_seconds))
        record.update(peaks(measurement, record.state_bytes))
        if record.peer:
            record.peer["backend"] = measurement.kept.backend
        if case.strategy.is_stated and not peak_checks(case.strategy, record):
            pytest.skip(f"this system does not tell what a load to {case.device} takes")
        breaches = peak_breaches(case.strategy, record)
        grown = find_regressions(record)
        alive = measurement.alive
        if (explain or breaches or grown) and not alive:
            # To know what was alive has its price: it is paid by a load of its own.
            explaining = case.job(case.strategy.load, checkpoint, rehearsal, explained=True)
            alive = measure(explaining, case.limit_seconds).alive
    if alive:
        record.alive_at_peak = {figure: [asdict(held) for held in holders] for figure, holders in alive.items()}
    # What other projects keep is theirs to say: it is shown.
    left = [] if case.strategy.peer else leaks(measurement.kept, record)
    if left:
        # The strategy is to blame for what the model does not leave by itself.
        left = leaks(measurement.kept, record, case.left_by_model())
    if problems := explained(breaches, alive) + left:
        pytest.fail("\n".join([*problems, *explained(grown, alive)]), pytrace=False)
    if grown:
        raise MemoryRegression("\n".join(explained(grown, alive)), pytrace=False)


def peaks(measurement: Measurement, state_bytes: int) -> Fields:
    """What a measurement says, in a record's fields."""
    device, host = measurement.device, measurement.host
    total = host.total_bytes if host.total_peak_bytes is None else host.total_peak_bytes
    return {
        "device_requested_peak_bytes": device.requested_bytes,
        "device_allocated_peak_bytes": device.allocated_bytes,
        "device_reserved_peak_bytes": device.reserved_bytes,
        "device_peak_ratio": ratio(device.requested_bytes, state_bytes),
        "device_driver_peak_bytes": measurement.driver_bytes,
        "host_private_peak_bytes": host.private_bytes,
        "host_file_peak_bytes": host.file_bytes,
        "host_pinned_peak_bytes": device.pinned_bytes,
        "host_total_peak_bytes": total,
        "host_peak_ratio": ratio(host.private_bytes, state_bytes),
        "minor_faults": measurement.minor_faults,
        "major_faults": measurement.major_faults,
        "read_bytes": measurement.read_bytes,
        "retained_bytes": after[0] if (after := measurement.kept.retained) else None,
        "retained_again_bytes": after[1] if len(after) > 1 else None,
        "timeline": measurement.timeline.as_record(),
    }


def explained(problems: dict[str, str], alive: Alive) -> list[str]:
    """What is wrong with every figure, and under it what was alive at that peak."""
    return [line for figure, problem in problems.items() for line in (problem, *alive_lines(alive.get(figure, ())))]


def leaks(kept: RetainedMemory, record: Record, by_itself: RetainedMemory | None = None) -> list[str]:
    """What a dropped model left behind, a line each: more than the model leaves `by_itself`, with no strategy."""
    host_slack = max(LEAK_SLACK_BYTES, LEAK_SLACK_BYTES_PER_TENSOR * record.tensors)
    host_slack += int(LEAK_SLACK_OF_STATE * record.state_bytes)
    return left_outside(kept.outside, by_itself.outside if by_itself else OutsideMemory()) + [
        f"{count / 1e6:,.1f} MB of {kind} memory are still held after the model was dropped: the strategy keeps them"
        for kind, count, slack, other in (
            ("device", kept.device_bytes, 0, by_itself and by_itself.device_bytes),
            ("page-locked host", kept.pinned_bytes, 0, by_itself and by_itself.pinned_bytes),
            ("private host", kept.host.private_bytes, host_slack, by_itself and by_itself.host.private_bytes),
            ("file-backed host", kept.host.file_bytes, host_slack, by_itself and by_itself.host.file_bytes),
        )
        if count is not None and count > slack + (other or 0)
    ]


def left_outside(left: OutsideMemory, by_itself: OutsideMemory) -> list[str]:
    """Leaks outside of the load's process, a line each: more than the model leaves `by_itself`."""
    count, lines = len(left.processes), []
    if count > len(by_itself.processes):
        running = "process is" if count == 1 else "processes are"
        lines.append(
            f"{count} {running} still running after the load, with {left.process_bytes / 1e6:,.1f} MB: "
            "end what the loader starts before it returns"
        )
    if left.shared_bytes > SHARED_SLACK_BYTES + by_itself.shared_bytes:
        lines.append(
            f"{left.shared_bytes / 1e6:,.1f} MB of shared memory are still there after the model was dropped: "
            "close and unlink it before the loader returns"
        )
    return lines
