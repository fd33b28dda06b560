"""Memory that a load takes outside of its process: in processes that it starts, and in shared memory."""

import ctypes
import mmap
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

from bench.meters.shared_memory import SHARED_FOLDER

MIB = 2**20

HELD = 48 * MIB

# Long enough to be sampled on a busy machine.
SEEN_SECONDS = 0.2
SLEEP = (sys.executable, "-S", "-c", f"import time; held = b'x' * {HELD}; print(flush=True); time.sleep(600)")


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
    """Start a process as `daemon(3)` does: without a parent, in a session of its own."""

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
    """Start processes as the workers of a `DataLoader`."""

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
