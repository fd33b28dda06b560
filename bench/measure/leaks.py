"""Memory and processes that remain after a load, when its model is deleted."""

from bench.meters.child import RetainedMemory
from bench.meters.outside_memory import OutsideMemory
from bench.record.record import Record

# What a dropped model may leave behind on the host: Python's own objects and caches, a few KB a tensor. On the
# device it may leave nothing.
LEAK_SLACK_BYTES = 4 * 2**20
LEAK_SLACK_OF_STATE = 0.002
# 1 to 2 KB a tensor with 4,000 tensors, and 4 KB with the books of a simulated device.
LEAK_SLACK_BYTES_PER_TENSOR = 8 * 2**10
# Of shared memory: OpenMP has a page.
SHARED_SLACK_BYTES = 2**16


def leaks(kept: RetainedMemory, record: Record, by_itself: RetainedMemory | None = None) -> list[str]:
    """Return a line for each leak: more than the model leaves `by_itself`, with no strategy."""
    host_slack = max(LEAK_SLACK_BYTES, LEAK_SLACK_BYTES_PER_TENSOR * record.tensors)
    host_slack += int(LEAK_SLACK_OF_STATE * record.state_bytes)
    return left_outside(kept.outside, by_itself.outside if by_itself else OutsideMemory()) + [
        f"leak: {count / 1e6:,.1f} MB of {kind} memory are still allocated after the model was deleted"
        for kind, count, slack, other in (
            ("device", kept.device_bytes, 0, by_itself and by_itself.device_bytes),
            ("page-locked host", kept.pinned_bytes, 0, by_itself and by_itself.pinned_bytes),
            ("private host", kept.host.private_bytes, host_slack, by_itself and by_itself.host.private_bytes),
            ("file-backed host", kept.host.file_bytes, host_slack, by_itself and by_itself.host.file_bytes),
        )
        if count is not None and count > slack + (other or 0)
    ]


def left_outside(left: OutsideMemory, by_itself: OutsideMemory) -> list[str]:
    """Return a line for each leak outside of the load's process: more than the model leaves `by_itself`."""
    count, lines = len(left.processes), []
    if count > len(by_itself.processes):
        running = "process is" if count == 1 else "processes are"
        lines.append(
            f"leak: {count} {running} still running after the load, with {left.process_bytes / 1e6:,.1f} MB; end what "
            "the loader starts before it returns"
        )
    if left.shared_bytes > SHARED_SLACK_BYTES + by_itself.shared_bytes:
        lines.append(
            f"leak: {left.shared_bytes / 1e6:,.1f} MB of shared memory are still allocated after the model "
            f"was deleted; "
            "close and unlink it before the loader returns"
        )
    return lines
