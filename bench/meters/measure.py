"""A load measured in a process of its own, and watched from outside while it runs."""

import multiprocessing
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import TypeVar

from bench.meters.child import Failure, Job, Kept, Ready, Seen, run
from bench.meters.device import Alive, DevicePeaks
from bench.meters.host import HostMemory, memory_reader

# Between two looks at the child's memory while it loads.
SAMPLE_SECONDS = 0.0005

# What a process that has closed its connection may take to end.
FAREWELL_SECONDS = 5.0

_CONTEXT = multiprocessing.get_context("forkserver")
# pytest is there for the children of the `pytest` command, which import it as their main module.
_CONTEXT.set_forkserver_preload(["pytest", "bench.meters.child", "bench.meters.warm"])

Message = TypeVar("Message")


class LoadDied(Exception):
    """The process of a load ended, or had to be ended, before it could say what it saw."""


class LoadFailed(Exception):
    """A load, its first logits or its check raised an exception in its process."""


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
    connection, other_end = _CONTEXT.Pipe()
    process = _CONTEXT.Process(target=run, args=(other_end, job), daemon=True)
    _start(process)
    other_end.close()
    child = _Child(process, connection, limit_seconds, time.monotonic() + limit_seconds)
    try:
        level = child.receive(Ready).level
        connection.send("go")
        most = level and child.watch(level)
        seen = child.receive(Seen)
        kept = child.receive(Kept)
    finally:
        process.kill()
        process.join()
        connection.close()
    host = _mend_private(most.peak_with(seen.host).above(level)) if level and most else seen.host
    return Measurement(seen.device, host, seen.minor_faults, seen.major_faults, kept, seen.alive)


def _mend_private(peaks: HostMemory) -> HostMemory:
    """Private memory that stood too short to be looked at, but not to be in the kernel's exact peak of the total."""
    if peaks.private_bytes is None or peaks.file_bytes is None or peaks.total_peak_bytes is None:
        return peaks
    return replace(peaks, private_bytes=max(peaks.private_bytes, peaks.total_peak_bytes - peaks.file_bytes))


def _start(process: ForkServerProcess) -> None:
    """Start a child, and the fork server with the first one: it looks for its modules where this process does."""
    inherited = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    try:
        process.start()
    finally:
        if inherited is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = inherited


@dataclass(frozen=True)
class _Child:
    process: ForkServerProcess
    connection: Connection
    limit_seconds: float
    deadline: float

    def watch(self, level: HostMemory) -> HostMemory:
        """The most that each figure showed until the child sent its next message, or ended."""
        assert self.process.pid is not None
        most = level
        # A process that has ended cannot be read: the next `receive` says how it did.
        with suppress(ProcessLookupError), memory_reader(self.process.pid) as read_memory:
            while not self.connection.poll() and time.monotonic() < self.deadline:
                most = most.peak_with(read_memory())
                # Not a wait for the connection: that is rounded up to whole milliseconds.
                time.sleep(SAMPLE_SECONDS)
        return most

    def receive(self, kind: type[Message]) -> Message:
        """The child's next message, which is to be of this kind."""
        try:
            if not self.connection.poll(max(0.0, self.deadline - time.monotonic())):
                raise LoadDied(f"the load was ended: it was not done within {self.limit_seconds:g} s")
            message = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join(FAREWELL_SECONDS)
            raise LoadDied(f"the process of the load died: {_manner_of_death(self.process.exitcode)}") from None
        if isinstance(message, Failure):
            failed = LoadFailed(f"{message.kind}: {message.message}")
            failed.add_note(message.trace)
            raise failed
        assert isinstance(message, kind)
        return message


def _manner_of_death(exit_code: int | None) -> str:
    if exit_code is None:
        return "it stopped answering"
    if exit_code >= 0:
        return f"it exited with status {exit_code}"
    name = signal.Signals(-exit_code).name
    likely = {
        "SIGKILL": ", most likely by the kernel, out of memory",
        "SIGSEGV": ", a segmentation fault",
        "SIGBUS": ", a mapped file that was cut or could not be read",
    }
    return f"killed by {name}{likely.get(name, '')}"
