"""One load, measured from inside the fresh process that runs it.

The process is forked by a server that has torch imported, so it is ready in milliseconds; whatever it does
to its memory ends with it.
"""

import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from unittest.mock import patch

import torch
from torch import nn

from bench.meters.allocations import Alive
from bench.meters.device import DeviceMeter, DevicePeaks
from bench.meters.host import (
    HostMemory,
    bytes_read,
    file_backed,
    give_back_at_once,
    memory_reader,
    release_memory,
    reset_peak,
)
from bench.meters.local_tensors import local_tensors
from bench.meters.outside_memory import OutsideMemory, OutsideWatcher
from bench.meters.phase_times import PhaseTimes
from bench.meters.process import telling_failures
from bench.meters.timeline import Points
from model.verification.outside_judge import Judge
from model.verification.tensor_places import Tell, teller

Build = Callable[[], nn.Module]


@dataclass(frozen=True)
class Job:
    """A load to be measured, as functions that can be pickled; the child calls them in this order.

    `meter()` makes the meter of the device. `rehearse(device)` does all that follows with a model so small that
    it does not count: what is imported or cached at a first call belongs to no strategy. `load(device, noted)` returns
    the loaded model, which it builds with the function that `noted(build)` is. `use(model)` runs until its first
    logits, where there are any, `check(model)` raises if a weight is wrong. With `device_bytes` the device hands
    out no more than those until the load has returned: what first logits take is the model's. With `again` it loads a
    second time. `backend(device)` says what the load goes by. `judge` is called by who watches: if that finds the
    model right, it is `check(model, told=True)`, and values are not compared again.
    """

    meter: Callable[[], DeviceMeter]
    rehearse: Callable[[torch.device], object]
    load: Callable[[torch.device, Callable[[Build], Build]], nn.Module]
    use: Callable[[nn.Module], object] | None
    check: Callable[..., object]
    device_bytes: int | None = None
    again: bool = False
    backend: Callable[[torch.device], str | None] | None = None
    judge: Judge | None = None


@dataclass(frozen=True)
class Ready:
    """Host memory before the load; None: the meter counts it, and nobody samples it from outside."""

    level: HostMemory | None


@dataclass(frozen=True)
class ChildStats:
    """The figures that the child took of its own load.

    Device peaks are those of the load alone, faults those until the first logits. `host` was read after every weight
    was read once, since a mapped weight takes memory only then. If the meter counts the host, `host` is above the
    level already, and there are no faults. `alive` are the live allocations at the peaks. `read_bytes` were read from
    files by calls, from a disk or the page cache; None: not counted.
    """

    device: DevicePeaks
    host: HostMemory
    minor_faults: int | None
    major_faults: int | None
    alive: Alive
    read_bytes: int | None = None


@dataclass(frozen=True)
class RetainedMemory:
    """Memory that was still held after the model was deleted, in bytes above the level before the load.

    `retained` was held beside the model while it was in use, private host memory and the device's together: after the
    first load, and after a second one, if there was one and the system tells. `outside` was left in other processes
    and in shared memory.
    """

    host: HostMemory
    device_bytes: int | None
    retained: tuple[int | None, ...] = ()
    backend: str | None = None
    pinned_bytes: int | None = None
    outside: OutsideMemory = field(default_factory=OutsideMemory)


@dataclass(frozen=True)
class LoadTrace:
    """The course of a load, in seconds on the monotonic clock; `host_seen` is when `ChildStats.host` was read.

    `points` are the meter's. It is sent last, because it takes memory to make.
    """

    began: float
    host_seen: float
    moments: dict[str, float]
    points: Points


def run(connection: Connection, job: Job) -> None:
    """Measure `job` in this process.

    Sends `Ready`, waits for a go-ahead, then sends `ChildStats`, `RetainedMemory` and `LoadTrace`; or a `Failure`
    instead of any.
    """
    tell, since = teller(connection.fileno()), time.time()
    with telling_failures(connection):
        give_back_at_once()
        meter = job.meter()
        with memory_reader(os.getpid()) as read_memory, meter.watching():
            _measure(connection, job, meter, read_memory, tell, OutsideWatcher(os.getpid(), since))


def _measure(  # noqa: PLR0913, PLR0917 - what a load is measured with
    connection: Connection,
    job: Job,
    meter: DeviceMeter,
    read_memory: Callable[[], HostMemory],
    tell: Tell,
    outside_watcher: OutsideWatcher,
) -> None:
    job.rehearse(meter.device)

    meter.start()
    release_memory()
    reset_peak()
    level = read_memory()
    connection.send(Ready(None if meter.counts_host else level))
    # By the go-ahead, somebody watches from outside.
    connection.recv()
    if job.device_bytes is not None:
        meter.limit(job.device_bytes)

    faults_before, read_before = resource.getrusage(resource.RUSAGE_SELF), bytes_read()
    moments, began = PhaseTimes(), time.monotonic()
    model = load_noting(job, meter.device, moments)
    meter.synchronize()
    moments.note("copy")
    device_peaks = meter.peaks()
    if job.device_bytes is not None:
        meter.limit(None)
    if job.use:
        job.use(model)
        meter.synchronize()
        moments.note("first_logits")
    faults, read = resource.getrusage(resource.RUSAGE_SELF), bytes_read()
    _read_every_page(model, meter)
    host = meter.host_peaks() if meter.counts_host else read_memory()
    host_seen = time.monotonic()
    connection.send(
        ChildStats(
            device=device_peaks,
            host=host,
            minor_faults=None if meter.counts_host else faults.ru_minflt - faults_before.ru_minflt,
            major_faults=None if meter.counts_host else faults.ru_majflt - faults_before.ru_majflt,
            alive=meter.alive(),
            read_bytes=None if meter.counts_host or read is None else read - (read_before or 0),
        )
    )

    def retained(model: nn.Module) -> int | None:
        return None if meter.counts_host else _bytes_beside_model(model, meter, read_memory().above(level))

    kept = [retained(model)]
    # Called from here, by a name that no other module knows: whatever the loader has replaced, the model is this one.
    _check(job, model, tell)
    del model
    release_memory()
    # Memory that a second load or its check leaves is not the first one's.
    host_held = meter.host_held() if meter.counts_host else read_memory().above(level)
    device_held, pinned_held, outside = meter.held_bytes(), meter.pinned_held_bytes(), outside_watcher.left()
    if job.again:
        model = job.load(meter.device, lambda build: build)
        if job.use:
            job.use(model)
        kept.append(retained(model))
        _check(job, model, tell)
        del model
    backend = job.backend(meter.device) if job.backend else None
    connection.send(RetainedMemory(host_held, device_held, tuple(kept), backend, pinned_held, outside))
    connection.send(LoadTrace(began, host_seen, moments.seconds, meter.points()))


def _check(job: Job, model: nn.Module, tell: Tell) -> None:
    """Check a model after telling the judge of it; without that the judge takes it for wrong."""
    job.check(model, told=True) if job.judge and tell(model, ()) else job.check(model)


def load_noting(job: Job, device: torch.device, moments: PhaseTimes) -> nn.Module:
    """Return the loaded model. Note when the first one was built, and when the last `torch.load` returned."""
    # Recipes look for it in `torch` when they call it.
    with patch.object(torch, "load", moments.last("load", torch.load)):
        return job.load(device, partial(moments.first, "build"))


def _bytes_beside_model(model: nn.Module, meter: DeviceMeter, held: HostMemory) -> int | None:
    """Return the bytes of private host memory and of the device that are held beside the tensors of a model."""
    release_memory()
    if held.private_bytes is None:
        return None
    storages = {tensor.untyped_storage() for tensor in local_tensors(model)}
    on_host = [storage for storage in storages if storage.device.type == "cpu"]
    backed = file_backed(storage.data_ptr() for storage in on_host)
    owned = sum(storage.nbytes() for storage, in_file in zip(on_host, backed, strict=True) if not in_file)
    on_device = sum(storage.nbytes() for storage in storages if storage.device.type != "cpu")
    # A page that nobody touched yet is not held.
    return max(0, held.private_bytes - owned) + max(0, (meter.taken_bytes() or 0) - on_device)


def _read_every_page(model: nn.Module, meter: DeviceMeter) -> None:
    """Read every page of a model's weights in host memory: a mapped weight takes memory only then."""
    for tensor in local_tensors(model):
        if tensor.device.type == "cpu":
            meter.read(tensor.untyped_storage())
