"""The measurement of a load in a process of its own, whose memory is sampled from outside while it runs."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce

from bench.meters.allocations import Alive
from bench.meters.child import ChildStats, Job, LoadTrace, Ready, RetainedMemory, run
from bench.meters.device import DeviceMeter, DevicePeaks
from bench.meters.host import HostMemory
from bench.meters.process import Child, child_process
from bench.meters.sampling import MemorySample, ReadMemory, sample_memory
from bench.meters.timeline import Points, Timeline, raised, timeline

# Bytes of a peak, and the share of a small one, that may be too short to be sampled. On a busy machine samples come
# late and miss more: then the load is measured again, more closely, TRIES times in all at most.
UNSEEN_BYTES = 4 * 2**20
UNSEEN_SHARE = 1 / 4
TRIES = 10


@dataclass(frozen=True)
class Measurement:
    """The peaks of one load, in bytes above the level before it; None where they could not be measured.

    Host figures last until every weight was read once, device figures until the load returned. `kept` was still held
    after the model was deleted, `alive` are the live allocations at the peaks, as far as known. `driver_bytes` is the
    peak of the device as its driver tells, until every weight was read: other allocators than PyTorch's and other
    processes count too. `read_bytes` were read from files by calls.
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
    """Run `job` in a fresh process and measure the memory of its load, again if too little of it was sampled.

    Raises `LoadDied` if the process is killed, crashes, or takes longer than `limit_seconds`, and
    `LoadFailed`, with the exception's own words, if anything in it raised.
    """

    def once(closely: bool) -> list[Measurement]:
        with child_process(run, job, limit_seconds) as child:
            return [measure_child(child, job, closely=closely)]

    return best_of(once)[0]


def best_of(measure_all: Callable[[bool], list[Measurement]]) -> list[Measurement]:
    """Measure loads that run at once, and again if too little of any was sampled; return the best measurements.

    `measure_all(closely)` measures them once, see `sample_memory`.
    """

    def unseen(measurements: list[Measurement]) -> int:
        return max(_unseen_bytes(measurement.host) for measurement in measurements)

    tries = [measure_all(False)]
    while any(_hardly_seen(measurement.host) for measurement in tries[-1]) and len(tries) < TRIES:
        tries.append(measure_all(True))
    best = min(tries, key=unseen)
    return [replace(measurement, host=_mend_private(measurement.host)) for measurement in best]


def measure_child(child: Child, job: Job, *, closely: bool = False) -> Measurement:
    """Measure the load of a child, see `child.run` and `sample_memory`. Raises `LoadDied` and `LoadFailed`."""
    deadline = child.deadline()
    level, meter = child.receive(Ready, deadline).level, job.meter()
    used_level = meter.used_bytes() if level else None
    if level:
        level = replace(level, outside_bytes=child.outside_watcher.look())
    child.connection.send("go")
    samples, used = sample_load(child, level, meter, deadline, closely=closely) if level else ([], 0)
    stats = child.receive(ChildStats, deadline)
    for _ in range(2 if job.again else 1):
        child.require_right(job.judge, RetainedMemory, deadline)
    kept = child.receive(RetainedMemory, deadline)
    if level:
        shared = {**kept.outside.shared, **child.outside_watcher.named()}
        kept = replace(kept, outside=replace(kept.outside, shared=shared))
    trace = child.receive(LoadTrace, deadline)
    samples.append(MemorySample(trace.host_seen, stats.host))
    if level:
        samples = [one._replace(memory=one.memory.above(level)) for one in samples]
    host = reduce(HostMemory.peak_with, (one.memory for one in samples))
    over_time = _timeline(trace, samples if level else [], stats.device, _mend_private(host))
    return Measurement(
        device=stats.device,
        host=host,
        minor_faults=stats.minor_faults,
        major_faults=stats.major_faults,
        kept=kept,
        alive=stats.alive,
        timeline=over_time,
        driver_bytes=None if used_level is None else max(0, used - used_level),
        read_bytes=stats.read_bytes,
    )


def _timeline(trace: LoadTrace, samples: list[MemorySample], device: DevicePeaks, host: HostMemory) -> Timeline:
    """Return the timeline of a load; `samples` are above the level before it, empty if the meter counts the host."""
    peaks = {
        "device_requested_bytes": device.requested_bytes,
        "host_private_bytes": host.private_bytes,
        "host_file_bytes": host.file_bytes,
        "host_pinned_bytes": device.pinned_bytes,
    }
    points = {**trace.points, **_host_points(samples, host)}
    return timeline(trace.began, trace.moments, trace.host_seen, points, peaks)


def _host_points(samples: list[MemorySample], peaks: HostMemory) -> Points:
    """Return private and file-backed bytes over time, as high as their peaks; empty where the system does not tell."""
    if not samples or peaks.private_bytes is None or peaks.file_bytes is None:
        return {}
    return {
        "host_private_bytes": raised([(at, memory.whole_bytes or 0) for at, memory in samples], peaks.private_bytes),
        "host_file_bytes": raised([(at, memory.file_bytes or 0) for at, memory in samples], peaks.file_bytes),
    }


def _unseen_bytes(peaks: HostMemory) -> int:
    """Return the bytes by which the kernel's exact peak of the total is above the sampled peaks of its parts."""
    if peaks.private_bytes is None or peaks.file_bytes is None or peaks.total_peak_bytes is None:
        return 0
    return max(0, peaks.total_peak_bytes - peaks.file_bytes - peaks.private_bytes)


def _hardly_seen(peaks: HostMemory) -> bool:
    return _unseen_bytes(peaks) > min(UNSEEN_BYTES, UNSEEN_SHARE * (peaks.total_peak_bytes or 0))


def _mend_private(peaks: HostMemory) -> HostMemory:
    """Count as private the bytes that were not sampled, which may have been, and those outside of the process."""
    if peaks.private_bytes is None or peaks.whole_bytes is None:
        return peaks
    inside = peaks.private_bytes + _unseen_bytes(peaks)
    beyond = max(0, peaks.whole_bytes - inside)
    total = None if peaks.total_peak_bytes is None else peaks.total_peak_bytes + beyond
    return replace(peaks, private_bytes=inside + beyond, total_peak_bytes=total, outside_bytes=0)


def sample_load(
    child: Child, level: HostMemory, meter: DeviceMeter, deadline: float, *, closely: bool = False
) -> tuple[list[MemorySample], int]:
    """Sample the child until it sends its next message, or ends.

    Returns the samples that differ from the one before, and the most bytes that the device's driver told; 0 without
    a driver.
    """
    samples, driver_bytes = [MemorySample(time.monotonic(), level)], 0

    def take(read_memory: ReadMemory) -> None:
        nonlocal driver_bytes
        memory = child.outside_watcher.whole(read_memory)
        if memory != samples[-1].memory:
            samples.append(MemorySample(time.monotonic(), memory))
        driver_bytes = max(driver_bytes, meter.used_bytes() or 0)

    def take_last(read_memory: ReadMemory) -> None:
        samples.append(MemorySample(time.monotonic(), child.outside_watcher.again(read_memory)))

    sample_memory(child, deadline, take, take_last, closely=closely)
    return samples, driver_bytes
