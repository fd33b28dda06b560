"""Tests of memory that a load holds outside of its process: it counts, is told of, and is gone afterwards."""

import ctypes
import mmap
import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
from bench.meters.clock import LoadClock, clock_apart
from bench.meters.measure import Measurement, measure
from bench.meters.process import LoadDied
from bench.meters.shared_memory import SHARED_FOLDER
from bench.record.record import Record

MIB = 2**20
HELD = 48 * MIB
# That of the gates of private memory, and what a forked process writes to of the pages that it shares.
SLACK = (8 + 8) * MIB
# Long enough to be seen on a busy machine.
SEEN_SECONDS = 0.2
SLEEP = (sys.executable, "-S", "-c", f"import time; held = b'x' * {HELD}; print(flush=True); time.sleep(600)")
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


def in_fork(work: Callable[[], object], seconds: float = 600.0) -> int:
    """Do it in a process of its own, which stays for a while; give its number when it is done."""
    reads, writes = os.pipe()
    if not (pid := os.fork()):
        held = work()
        os.write(writes, b"x")
        time.sleep(seconds)
        os._exit(held is None)
    os.read(reads, 1)
    return pid


def fill() -> bytes:
    return b"x" * HELD


def fork_that_ends() -> None:
    os.waitpid(in_fork(fill, SEEN_SECONDS), 0)


def fork_that_stays() -> None:
    in_fork(fill)
    time.sleep(SEEN_SECONDS)


def daemon() -> None:
    """As `daemon(3)` starts one: nobody's child, in a session of its own."""

    def start() -> None:
        os.setsid()
        in_fork(fill)
        os._exit(0)

    if not (pid := os.fork()):
        start()
    os.waitpid(pid, 0)
    time.sleep(SEEN_SECONDS)


def forks_that_share() -> None:
    """Two processes have the same pages, which the load itself has not."""

    def fill_and_fork() -> tuple[bytes, int]:
        held = fill()
        return held, in_fork(lambda: None)

    in_fork(fill_and_fork)
    time.sleep(SEEN_SECONDS)


def command_that_ends() -> None:
    subprocess.run([*SLEEP[:-1], SLEEP[-1].replace("600", str(SEEN_SECONDS))], check=True, stdout=subprocess.DEVNULL)


def command_that_stays() -> None:
    started = subprocess.Popen(SLEEP, stdout=subprocess.PIPE)
    assert started.stdout
    started.stdout.readline()
    time.sleep(SEEN_SECONDS)


def worker() -> None:
    """As a `DataLoader` has them."""

    def work() -> None:
        held = fill()
        time.sleep(SEEN_SECONDS * (held is not None))

    started = multiprocessing.get_context("fork").Process(target=work)
    started.start()
    started.join()


def threads() -> None:
    with ThreadPoolExecutor(4) as pool:
        held = list(pool.map(lambda _: b"x" * (HELD // 4), range(4)))
    time.sleep(SEEN_SECONDS * len(held) / 4)


def shared_memory(name: str, *, unlinks: bool) -> None:
    memory = SharedMemory(name, create=True, size=HELD)
    assert memory.buf
    write_to(memory.buf)
    time.sleep(SEEN_SECONDS)
    memory.close()
    if unlinks:
        memory.unlink()


def file(name: str, *, removes: bool) -> None:
    path = SHARED_FOLDER / name
    with path.open("wb", buffering=0) as opened:
        for _ in range(HELD // MIB):
            opened.write(b"x" * MIB)
        time.sleep(SEEN_SECONDS / 4)
    time.sleep(SEEN_SECONDS)
    if removes:
        path.unlink()


def nameless_file(*, closes: bool) -> None:
    descriptor = os.memfd_create("pieces")
    for _ in range(HELD // MIB):
        os.write(descriptor, b"x" * MIB)
    time.sleep(SEEN_SECONDS)
    if closes:
        os.close(descriptor)


def shared_mapping() -> None:
    with mmap.mmap(-1, HELD) as memory:
        write_to(memory)
        time.sleep(SEEN_SECONDS)


def shared_mapping_filled_by_a_fork() -> None:
    with mmap.mmap(-1, HELD) as memory:
        os.waitpid(in_fork(partial(write_to, memory), SEEN_SECONDS), 0)


def segment(*, removes: bool) -> None:
    libc = ctypes.CDLL(None)
    number = libc.shmget(0, ctypes.c_size_t(HELD), 0o600)
    libc.shmat.restype = ctypes.c_void_p
    address = ctypes.c_void_p(libc.shmat(number, None, 0))
    ctypes.memset(address, 1, HELD)
    libc.shmdt(address)
    time.sleep(SEEN_SECONDS)
    if removes:
        libc.shmctl(number, 0, None)


def older_file(path: Path) -> None:
    with path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY) as memory:
        assert sum(memory[:: mmap.PAGESIZE]) > 0
        time.sleep(SEEN_SECONDS)


def write_to(memory: "memoryview | mmap.mmap") -> None:
    """Write to all of it, with little beside."""
    for start in range(0, HELD, MIB):
        memory[start : start + MIB] = b"x" * MIB


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


PROCESS = r"1 process is still running after the load, with [56]\d\.\d MB: end what"
SHARED = r"50\.3 MB of shared memory are still there after"


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
    assert problem is None or re.match(problem, problems[0])


def problems_of(measurement: Measurement) -> list[str]:
    return leaks(measurement.kept, Record(tensors=2, state_bytes=24))


def filled_by_a_worker(name: str) -> None:
    """As the workers of a `DataLoader` send tensors: one writes to shared memory, and the load maps it."""
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
    with clock_apart(partial(clock_of, work), 60.0) as clock:
        clock.load_and_use()


def test_a_load_under_a_budget_leaves_nothing() -> None:
    trial = BudgetedLoad(job_of(daemon), (), (1,), 60.0)
    assert trial.under(Budget()).lived
