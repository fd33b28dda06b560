"""One load, measured from inside the fresh process that runs it.

The process is forked by a server that has torch imported, so it is ready in milliseconds; whatever it does
to its memory ends with it.
"""

import os
import resource
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch
from torch import nn

from bench.meters.device import Alive, DeviceMeter, DevicePeaks
from bench.meters.host import HostMemory, give_back_at_once, memory_reader, release_memory, reset_peak
from bench.meters.process import telling_failures


@dataclass(frozen=True)
class Job:
    """A load to be measured, as functions that can be pickled; the child calls them in this order.

    `meter()` makes the meter of the device. `rehearse(device)` does all that follows with a model so small that
    it does not count: what is imported or cached at a first call belongs to no strategy. `load(device)` returns
    the loaded model, `use(model)` runs until its first logits, `check(model)` raises if a weight is wrong.
    """

    meter: Callable[[], DeviceMeter]
    rehearse: Callable[[torch.device], object]
    load: Callable[[torch.device], nn.Module]
    use: Callable[[nn.Module], object]
    check: Callable[[nn.Module], object]


@dataclass(frozen=True)
class Ready:
    """What the host holds before the load; None where that is counted: then there is nothing to watch."""

    level: HostMemory | None


@dataclass(frozen=True)
class Seen:
    """What the child saw of its own load.

    Device peaks are those of the load alone, faults those until the first logits. `host` was read after every
    weight was read once, since a mapped weight takes memory only then; where it is counted, it is above the level
    already, and there are no faults. `alive` is what the meter can tell of the peaks.
    """

    device: DevicePeaks
    host: HostMemory
    minor_faults: int | None
    major_faults: int | None
    alive: Alive


@dataclass(frozen=True)
class Kept:
    """What was still held after the model was dropped, in bytes above the level before the load."""

    host: HostMemory
    device_bytes: int | None


def run(connection: Connection, job: Job) -> None:
    """Measure `job` in this process.

    Sends `Ready`, waits for a go-ahead, then sends `Seen` and `Kept`; or a `Failure` instead of any.
    """
    with telling_failures(connection):
        give_back_at_once()
        meter = job.meter()
        with memory_reader(os.getpid()) as read_memory, meter.watching():
            _measure(connection, job, meter, read_memory)


def _measure(connection: Connection, job: Job, meter: DeviceMeter, read_memory: Callable[[], HostMemory]) -> None:
    job.rehearse(meter.device)

    meter.start()
    release_memory()
    reset_peak()
    level = read_memory()
    connection.send(Ready(None if meter.counts_host else level))
    # By the go-ahead, somebody watches from outside.
    connection.recv()

    faults_before = resource.getrusage(resource.RUSAGE_SELF)
    model = job.load(meter.device)
    meter.synchronize()
    device_peaks = meter.peaks()
    job.use(model)
    meter.synchronize()
    faults = resource.getrusage(resource.RUSAGE_SELF)
    _read_every_page(model, meter)
    connection.send(
        Seen(
            device=device_peaks,
            host=meter.host_peaks() if meter.counts_host else read_memory(),
            minor_faults=None if meter.counts_host else faults.ru_minflt - faults_before.ru_minflt,
            major_faults=None if meter.counts_host else faults.ru_majflt - faults_before.ru_majflt,
            alive=meter.alive(),
        )
    )

    job.check(model)
    del model
    release_memory()
    host_held = meter.host_held() if meter.counts_host else read_memory().above(level)
    connection.send(Kept(host_held, meter.held_bytes()))


def _read_every_page(model: nn.Module, meter: DeviceMeter) -> None:
    """Of a model's weights that are in host memory: what is mapped takes memory only then."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu":
            meter.read(tensor.untyped_storage())
