"""Samples of a child's memory, taken from outside while it loads."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from bench.meters.host import HostMemory, memory_reader
from bench.meters.process import Child

# Between two samples, and where a load was hardly seen before.
SAMPLE_SECONDS, CLOSE_SECONDS = 0.0005, 0.00005

ReadMemory = Callable[[], HostMemory]


class MemorySample(NamedTuple):
    """The memory of a process at a second on the monotonic clock."""

    seconds: float
    memory: HostMemory


def _nothing(_: ReadMemory) -> None:
    pass


def sample_memory(
    child: Child,
    deadline: float,
    take: Callable[[ReadMemory], object],
    last: Callable[[ReadMemory], object] = _nothing,
    *,
    closely: bool = False,
) -> None:
    """Call `take` with a reader of the child's memory until the child sends its next message, then `last`.

    `closely`: ten times as often.
    Returns early at the deadline, on the monotonic clock, and when the child has ended.
    """
    # A process that has ended cannot be read: the next `receive` tells how it ended.
    with suppress(ProcessLookupError), memory_reader(child.pid, child.outside_watcher.since) as read_memory:
        while not child.connection.poll() and time.monotonic() < deadline:
            take(read_memory)
            # Not a wait for the connection: that is rounded up to whole milliseconds.
            time.sleep(CLOSE_SECONDS if closely else SAMPLE_SECONDS)
        last(read_memory)
