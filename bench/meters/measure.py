"""A load measured in a process of its own, and watched from outside while it runs."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import reduce

from bench.meters.allocations import Alive
from bench.meters.child import ChildStats, Job, LoadTrace, Ready, RetainedMemory, run
from bench.meters.device import DeviceMeter, DevicePeaks
from bench.meters.host import HostMemory, memory_reader
from bench.meters.process import Child, child_process
from bench.meters.timeline import Points, Timeline, raised, timeline

# Between two looks at the child's memory while it loads.
SAMPLE_SECONDS = 0.0005
# What may stand too short to be looked at: so many bytes, and so much of a small peak. On a busy machine looks come
# late, and more is missed: then the load is measured again, TRIES times in all at most.
UNSEEN_BYTES = 4 * 2**20
UNSEEN_SHARE = 1 / 4
TRIES = 6

# What was seen, and when, on the monotonic clock.
Look = tuple[float, HostMemory]


@dataclass(frozen=True)
class Measurement:
    """The peaks of one load, in bytes above the level before it; None where they could not be measured.

    Host figures reach until every weight was read once, device figures until the load returned. `kept` is
    what stayed behind when the model was dropped, `alive` what was there at the peaks, as far as that is known.
    `driver_bytes` is what was taken of the device as its driver tells, until every weight was read: by other allocators
    than PyTorch's too, and by other processes. `read_bytes` were read from files by calls.
    """

    device: DevicePeaks
    host: HostMemory
    minor_faults: int | None
    major_faults: int | None
    kept: RetainedMemory
    alive: Alive
    timeline: Timeline
    driver_bytes: int | None = None
    read_bytes: int | None = None


def measure(job: Job, limit_seconds: float) -> Measurement:
    """Run `job` in a fresh process, and measure the memory of its load; in another one if too little of it was seen.

    Raises `LoadDied` if the process is killed, crashes, or takes longer than `limit_seconds`, and
    `LoadFailed`, with the exception's own words, if anything in it raised.
    """

    def once() -> list[Measurement]:
        with child_process(run, job, limit_seconds) as child:
            return [watched(child, job)]

    return best_of(once)[0]


def best_of(measure_all: Callable[[], list[Measurement]]) -> list[Measurement]:
    """What was measured of some loads at once: again, if too little was seen of any of them."""

    def unseen(measurements: list[Measurement]) -> int:
        return max(_unseen_bytes(measurement.host) for measurement in measurements)

    tries = [measure_all()]
    while any(_hardly_seen(measurement.host) for measurement in tries[-1]) and len(tries) < TRIES:
        tries.append(measure_all())
    best = min(tries, key=unseen)
    return [replace(measurement, host=_mend_private(measurement.host)) for measurement in best]


def watched(child: Child, job: Job) -> Measurement:
    """What is seen of the load that a child does, see `child.run`. Raises `LoadDied` and `LoadFailed`."""
    deadline = child.deadline()
    level, meter = child.receive(Ready, deadline).level, job.meter()
    used_level = meter.used_bytes() if level else None
    if level:
        level = replace(level, outside_bytes=child.lookout.look())
    child.connection.send("go")
    looks, used = _watch(child, level, meter, deadline) if level else ([], 0)
    seen = child.receive(ChildStats, deadline)
    for _ in range(2 if job.again else 1):
        child.require_right(job.judge, RetainedMemory, deadline)
    kept = child.receive(RetainedMemory, deadline)
    if level:
        kept = replace(kept, outside=replace(kept.outside, shared={**kept.outside.shared, **child.lookout.named()}))
    course = child.receive(LoadTrace, deadline)
    looks.append((course.host_seen, seen.host))
    if level:
        looks = [(at, memory.above(level)) for at, memory in looks]
    host = reduce(HostMemory.peak_with, (memory for _, memory in looks))
    over_time = _timeline(course, looks if level else [], seen.device, _mend_private(host))
    return Measurement(
        device=seen.device,
        host=host,
        minor_faults=seen.minor_faults,
        major_faults=seen.major_faults,
        kept=kept,
        alive=seen.alive,
        timeline=over_time,
        driver_bytes=None if used_level is None else max(0, used - used_level),
        read_bytes=seen.read_bytes,
    )


def _timeline(course: LoadTrace, looks: list[Look], device: DevicePeaks, host: HostMemory) -> Timeline:
    """`looks` are above the level before the load; there are none where the host was counted."""
    peaks = {
        "device_requested_bytes": device.requested_bytes,
        "host_private_bytes": host.private_bytes,
        "host_file_bytes": host.file_bytes,
        "host_pinned_bytes": device.pinned_bytes,
    }
    points = {**course.points, **_host_points(looks, host)}
    return timeline(course.began, course.moments, course.host_seen, points, peaks)


def _host_points(looks: list[Look], peaks: HostMemory) -> Points:
    """Of private and of file-backed memory, as high as their peaks; none where the system does not tell."""
    if not looks or peaks.private_bytes is None or peaks.file_bytes is None:
        return {}
    return {
        "host_private_bytes": raised([(at, memory.whole_bytes or 0) for at, memory in looks], peaks.private_bytes),
        "host_file_bytes": raised([(at, memory.file_bytes or 0) for at, memory in looks], peaks.file_bytes),
    }


def _unseen_bytes(peaks: HostMemory) -> int:
    """What the kernel's exact peak of the total has beyond the peaks of its parts that were seen."""
    if peaks.private_bytes is None or peaks.file_bytes is None or peaks.total_peak_bytes is None:
        return 0
    return max(0, peaks.total_peak_bytes - peaks.file_bytes - peaks.private_bytes)


def _hardly_seen(peaks: HostMemory) -> bool:
    return _unseen_bytes(peaks) > min(UNSEEN_BYTES, UNSEEN_SHARE * (peaks.total_peak_bytes or 0))


def _mend_private(peaks: HostMemory) -> HostMemory:
    """Count as private what was not seen, for it may have been, and what was outside of the process."""
    if peaks.private_bytes is None or peaks.whole_bytes is None:
        return peaks
    inside = peaks.private_bytes + _unseen_bytes(peaks)
    beyond = max(0, peaks.whole_bytes - inside)
    total = None if peaks.total_peak_bytes is None else peaks.total_peak_bytes + beyond
    return replace(peaks, private_bytes=inside + beyond, total_peak_bytes=total, outside_bytes=0)


def _watch(child: Child, level: HostMemory, meter: DeviceMeter, deadline: float) -> tuple[list[Look], int]:
    """What was seen until the child sent its next message, or ended, where it was not what was seen before.

    And the most that the device's driver told meanwhile; 0 where there is none.
    """
    looks, used = [(time.monotonic(), level)], 0
    # A process that has ended cannot be read: the next `receive` says how it did.
    with suppress(ProcessLookupError), memory_reader(child.pid, child.lookout.since) as read_memory:
        while not child.connection.poll() and time.monotonic() < deadline:
            memory = child.lookout.whole(read_memory)
            if memory != looks[-1][1]:
                looks.append((time.monotonic(), memory))
            used = max(used, meter.used_bytes() or 0)
            # Not a wait for the connection: that is rounded up to whole milliseconds.
            time.sleep(SAMPLE_SECONDS)
        looks.append((time.monotonic(), child.lookout.again(read_memory)))
    return looks, used
