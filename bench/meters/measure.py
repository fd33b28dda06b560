"""A load measured in a process of its own, and watched from outside while it runs."""

import time
from contextlib import suppress
from dataclasses import dataclass, replace

from bench.meters.child import Job, Kept, Ready, Seen, run
from bench.meters.device import Alive, DevicePeaks
from bench.meters.host import HostMemory, memory_reader
from bench.meters.process import Child, child_process

# Between two looks at the child's memory while it loads.
SAMPLE_SECONDS = 0.0005


@dataclass(frozen=True)
class Measurement:
    """The peaks of one load, in bytes above the level before it; None where they could not be measured.

    Host figures reach until every weight was read once, device figures until the load returned. `kept` is
    what stayed behind when the model was dropped, `alive` what was there at the peaks, as far as that is known.
    """

    device: DevicePeaks
    host: HostMemory
    minor_faults: int | None
    major_faults: int | None
    kept: Kept
    alive: Alive


def measure(job: Job, limit_seconds: float) -> Measurement:
    """Run `job` in a fresh process, and measure the memory of its load.

    Raises `LoadDied` if the process is killed, crashes, or takes longer than `limit_seconds`, and
    `LoadFailed`, with the exception's own words, if anything in it raised.
    """
    with child_process(run, job, limit_seconds) as child:
        deadline = child.deadline()
        level = child.receive(Ready, deadline).level
        child.connection.send("go")
        most = level and _watch(child, level, deadline)
        seen = child.receive(Seen, deadline)
        kept = child.receive(Kept, deadline)
    host = _mend_private(most.peak_with(seen.host).above(level)) if level and most else seen.host
    return Measurement(seen.device, host, seen.minor_faults, seen.major_faults, kept, seen.alive)


def _mend_private(peaks: HostMemory) -> HostMemory:
    """Private memory that stood too short to be looked at, but not to be in the kernel's exact peak of the total."""
    if peaks.private_bytes is None or peaks.file_bytes is None or peaks.total_peak_bytes is None:
        return peaks
    return replace(peaks, private_bytes=max(peaks.private_bytes, peaks.total_peak_bytes - peaks.file_bytes))


def _watch(child: Child, level: HostMemory, deadline: float) -> HostMemory:
    """The most that each figure showed until the child sent its next message, or ended."""
    assert child.process.pid is not None
    most = level
    # A process that has ended cannot be read: the next `receive` says how it did.
    with suppress(ProcessLookupError), memory_reader(child.process.pid) as read_memory:
        while not child.connection.poll() and time.monotonic() < deadline:
            most = most.peak_with(read_memory())
            # Not a wait for the connection: that is rounded up to whole milliseconds.
            time.sleep(SAMPLE_SECONDS)
    return most
