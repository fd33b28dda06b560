"""Tests of memory that a load holds outside of its process: it counts, is told of, and is gone afterwards."""

import mmap
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from torch import nn

from bench.measure.leaks import leaks
from bench.meters import device_meter, process
from bench.meters.budget import Budget, BudgetedLoad
from bench.meters.child import Job
from bench.meters.clock import LoadClock, remote_clock
from bench.meters.measure import Measurement, measure
from bench.meters.outside_memory import OutsideWatcher
from bench.meters.process import LoadDied
from bench.meters.process_tree import below, end_below
from bench.meters.shared_memory import SHARED_FOLDER, Mapped
from bench.record.record import Record
from bench.selftest.loads_outside import (
    HELD,
    SEEN_SECONDS,
    command_that_ends,
    command_that_stays,
    daemon,
    file,
    fork_that_ends,
    fork_that_stays,
    forks_that_share,
    in_fork,
    nameless_file,
    older_file,
    segment,
    shared_mapping,
    shared_mapping_filled_by_a_fork,
    shared_memory,
    threads,
    worker,
    write_to,
)

MIB = 2**20

# That of the gates of private memory, and what a forked process writes to of the pages that it shares.
SLACK = (8 + 8) * MIB


# What a load leaves that can be found by it. The process of the load imports this module anew.
NAME = f"weight-loading-test-{uuid4().hex}"


if not Path("/proc/self/smaps_rollup").exists():
    pytest.skip("needs Linux's /proc", allow_module_level=True)


def name_of(value: object) -> str:
    """Return an id of a parameter that is the same in every process of pytest-xdist."""
    if not callable(value):
        return "told" if value else "right"
    said = [f"{name}={one}" for name, one in getattr(value, "keywords", {}).items()]
    function: Any = getattr(value, "func", value)
    return " ".join((function.__name__, *said))


def nothing(*_: object) -> None:
    pass


def load_with(work: Callable[[], None], *_: object) -> nn.Module:
    work()
    return nn.Linear(2, 2)


def job_of(work: Callable[[], None]) -> Job:
    return Job(partial(device_meter, "cpu"), partial(load_with, nothing), partial(load_with, work), None, nothing)


def left_behind() -> tuple[set[str], set[int]]:
    """Return files that loads here may leave in shared memory, and processes below this one."""
    folder = {path.name for path in SHARED_FOLDER.glob(f"{NAME}*")}
    segments = set(Path("/proc/sysvipc/shm").read_text().splitlines()[1:])
    return folder | segments, {one.pid for one in psutil.Process().children(recursive=True)}


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    process.warm_up()
    before = left_behind()
    yield
    until = time.monotonic() + 10.0
    while (after := left_behind()) != before and time.monotonic() < until:
        time.sleep(0.01)
    assert after == before


PROCESS = r"1 process is still running after the load, with [56]\d\.\d MB; end what"

SHARED = r"50\.3 MB of shared memory are still allocated after"


@pytest.mark.parametrize(
    ("work", "problem"),
    [
        (fork_that_ends, None),
        (fork_that_stays, PROCESS),
        (daemon, PROCESS),
        (forks_that_share, r"2 processes are still running after the load"),
        (command_that_ends, None),
        (command_that_stays, PROCESS),
        (worker, None),
        (threads, None),
        (partial(shared_memory, NAME, unlinks=True), None),
        (partial(shared_memory, NAME, unlinks=False), SHARED),
        (partial(file, NAME, removes=True), None),
        (partial(file, NAME, removes=False), SHARED),
        (partial(nameless_file, closes=True), None),
        (partial(nameless_file, closes=False), SHARED),
        (shared_mapping, None),
        (shared_mapping_filled_by_a_fork, None),
        (partial(segment, removes=True), None),
        (partial(segment, removes=False), SHARED),
    ],
    ids=name_of,
)
def test_memory_outside_of_the_process_counts_and_what_stays_is_told(
    work: Callable[[], None], problem: str | None
) -> None:
    measurement = measure(job_of(work), 60.0)
    assert measurement.host.private_bytes == pytest.approx(HELD, abs=SLACK)
    assert measurement.host.file_bytes == pytest.approx(0, abs=SLACK)
    assert measurement.timeline.host_private_bytes
    assert max(measurement.timeline.host_private_bytes.bytes) == measurement.host.private_bytes
    problems = problems_of(measurement)
    assert len(problems) == (problem is not None), problems
    assert problem is None or re.search(f"^leak: {problem}", problems[0])


def problems_of(measurement: Measurement) -> list[str]:
    return leaks(measurement.kept, Record(tensors=2, state_bytes=24))


def filled_by_a_worker(name: str) -> None:
    """Send tensors as the workers of a `DataLoader` do: one writes to shared memory, and the load maps it."""
    memory = SharedMemory(name, create=True, size=HELD)
    assert memory.buf
    os.waitpid(in_fork(partial(write_to, memory.buf), 0.0), 0)
    assert sum(memory.buf[:: mmap.PAGESIZE]) > 0
    time.sleep(SEEN_SECONDS)
    memory.close()
    memory.unlink()


def test_what_one_process_fills_and_another_maps_counts_once() -> None:
    measurement = measure(job_of(partial(filled_by_a_worker, NAME)), 60.0)
    assert measurement.host.private_bytes == pytest.approx(HELD, abs=SLACK)
    assert problems_of(measurement) == []


def test_what_a_process_filled_counts_once_if_it_ends_while_it_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between two readings of it the memory that it mapped is gone from one, and was in the other."""
    with mmap.mmap(-1, HELD) as memory:

        def fill_in_fork() -> int:
            # Nobody is to read the exit status of what it starts.
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            return in_fork(partial(write_to, memory))

        load = in_fork(fill_in_fork)
    try:
        watcher = OutsideWatcher(load, time.time())
        assert watcher.look() == pytest.approx(HELD, abs=SLACK)
        [filled_it], maps_of = below(load), watcher._maps

        def maps_after_its_end(_: Sequence[int]) -> dict[int, Mapped]:
            os.kill(filled_it, signal.SIGKILL)
            while below(load):
                time.sleep(0.001)
            return {filled_it: Mapped({}, {})} | maps_of([])

        monkeypatch.setattr(watcher, "_maps", maps_after_its_end)
        # The load maps it still.
        assert watcher.look() == pytest.approx(HELD, abs=SLACK)
    finally:
        end_below(load)
        os.kill(load, signal.SIGKILL)
        os.waitpid(load, 0)


def test_a_checkpoint_in_shared_memory_is_a_file_like_others() -> None:
    path = SHARED_FOLDER / NAME
    path.write_bytes(b"x" * HELD)
    try:
        measurement = measure(job_of(partial(older_file, path)), 60.0)
        assert path.stat().st_size == HELD
    finally:
        path.unlink()
    assert measurement.host.file_bytes == pytest.approx(HELD, abs=SLACK)
    assert measurement.host.private_bytes == pytest.approx(0, abs=SLACK)
    assert problems_of(measurement) == []


def and_then(work: Callable[[], None], end: Callable[[], object]) -> None:
    work()
    end()


@pytest.mark.parametrize("work", [fork_that_stays, daemon, partial(file, NAME, removes=False)], ids=name_of)
@pytest.mark.parametrize("end", [partial(time.sleep, 600.0), partial(os._exit, 3)], ids=["hangs", "dies"])
def test_a_load_that_does_not_come_to_its_end_leaves_nothing(
    work: Callable[[], None], end: Callable[[], object]
) -> None:
    with pytest.raises(LoadDied):
        measure(job_of(partial(and_then, work, end)), 3.0)


def clock_of(work: Callable[[], None]) -> LoadClock:
    meter = device_meter("cpu")
    return LoadClock(partial(load_with, work), nothing, nothing, meter)


@pytest.mark.parametrize("work", [fork_that_stays, daemon, partial(segment, removes=False)], ids=name_of)
def test_a_timed_load_leaves_nothing(work: Callable[[], None]) -> None:
    with remote_clock(partial(clock_of, work), 60.0) as clock:
        clock.load_and_use()


def test_a_load_under_a_budget_leaves_nothing() -> None:
    trial = BudgetedLoad(job_of(daemon), (), (1,), 60.0)
    assert trial.under(Budget()).fits
