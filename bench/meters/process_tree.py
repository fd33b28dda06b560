"""The processes that a load starts: they stay below it, and end with it.

Sources: `prctl(2)` under PR_SET_CHILD_SUBREAPER and PR_SET_PDEATHSIG, `proc(5)` under `/proc/PID/task/TID/children`.
"""

import atexit
import ctypes
import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Collection
from contextlib import suppress
from math import inf
from multiprocessing import forkserver
from typing import Any

import psutil

from bench.meters.shared_memory import PROC

# From `sys/prctl.h`.
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36

# Time for killed processes to be gone: one that waits for a disk takes long.
PATIENCE_SECONDS = 5.0


def children(pid: int) -> list[int]:
    """Return the processes whose parent is this one; none if it is gone."""
    try:
        threads = [*(PROC / str(pid) / "task").iterdir()]
    except OSError:
        return [] if PROC.exists() else _told(pid)
    found = list[int]()
    for thread in threads:
        try:
            found += map(int, (thread / "children").read_bytes().split())
        except FileNotFoundError:
            # Either the thread has ended, or the kernel was built without this file.
            if not (PROC / "self" / "task" / str(os.getpid()) / "children").exists():
                return _told(pid)
        except OSError:
            continue
    return found


def _told(pid: int) -> list[int]:
    with suppress(psutil.Error):
        return [child.pid for child in psutil.Process(pid).children()]
    return []


def below(pid: int) -> list[int]:
    """Return the processes below a process that have not ended."""
    found, rest = list[int](), children(pid)
    while rest:
        one = rest.pop()
        rest += children(one)
        if _runs(one):
            found.append(one)
    return found


def _runs(pid: int) -> bool:
    """Return False for a process that has ended, but whose exit status nobody has read."""
    with suppress(psutil.Error):
        return bool(psutil.Process(pid).status() not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD})
    return False


def parent_of(pid: int) -> int:
    """Return the number of a process's parent; 0 if it is gone."""
    with suppress(psutil.Error):
        return psutil.Process(pid).ppid()
    return 0


def end_below(pid: int) -> None:
    """End all processes below a process, which is stopped first if there are any."""
    if below(pid):
        # It starts no more of them, and gets those that have lost their parent.
        _send(pid, signal.SIGSTOP)
        _kill_below(pid, PATIENCE_SECONDS)


def _kill_below(pid: int, most_seconds: float) -> None:
    until = time.monotonic() + most_seconds
    while (found := below(pid)) and time.monotonic() < until:
        for one in found:
            _send(one, signal.SIGKILL)
        time.sleep(0.001)


def _send(pid: int, number: int) -> None:
    with suppress(OSError):
        os.kill(pid, number)


def hold_together() -> None:
    """Keep the processes that a load starts below its own, and end with the fork server. Runs in the load's process.

    It may start processes by `multiprocessing`, which a daemon may not.
    """
    _control(PR_SET_CHILD_SUBREAPER, 1)
    _control(PR_SET_PDEATHSIG, signal.SIGKILL)
    multiprocessing.current_process().daemon = False
    # By the way that is the system's own: it would be by a fork server of the load's, which stays.
    multiprocessing.set_start_method(None, force=True)
    # The fork server ends when nobody has the other end of this pipe. A load may hang, and keep it for ever.
    server: Any = vars(forkserver)["_forkserver"]
    if (alive := server._forkserver_alive_fd) is not None:  # noqa: SLF001 - it has no other name
        os.close(alive)
        server._forkserver_alive_fd = None  # noqa: SLF001


def be_last() -> None:
    """Adopt the processes of loads that have died, and end all of them at the end. Runs in the fork server.

    The fork server ends when the run does, killed or not.
    """
    server = os.getpid()
    _control(PR_SET_CHILD_SUBREAPER, 1)
    # It reads the exit status of every process that it gets, and warns of those that it has not started.
    warnings.filterwarnings("ignore", "forkserver: waitpid returned unexpected pid")

    def end() -> None:
        # Not in a process that was forked from it.
        if os.getpid() == server:
            for pid in children(server):
                _send(pid, signal.SIGSTOP)
            _kill_below(server, inf)

    atexit.register(end)


def _control(option: int, value: int) -> None:
    # Only Linux has it.
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def server_pid() -> int | None:
    """Return the number of this process's fork server; None: there is none."""
    server: Any = vars(forkserver)["_forkserver"]
    return server._forkserver_pid  # noqa: SLF001 - it has no other name


def orphans(before: Collection[int]) -> list[int]:
    """Return the processes that the fork server got when a load died, and did not have `before`."""
    server = server_pid()
    if server is None:
        return []
    mine = {process.pid for process in multiprocessing.active_children()}
    return [pid for pid in children(server) if pid not in mine and pid not in before]


def end_orphans(before: Collection[int]) -> None:
    """End them, and all below them."""
    until = time.monotonic() + PATIENCE_SECONDS
    while (found := [pid for pid in orphans(before) if _runs(pid)]) and time.monotonic() < until:
        for pid in found:
            end_below(pid)
            _send(pid, signal.SIGKILL)
        time.sleep(0.001)
