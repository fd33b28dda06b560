"""A process of its own for whatever a load may do: to end it ends a measurement, and not the run."""

import multiprocessing
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from multiprocessing.util import Finalize
from threading import RLock
from typing import Any, TypeVar
from unittest.mock import patch

from bench.meters import shared_memory
from bench.meters.messages import received
from bench.meters.outside_memory import OutsideWatcher
from bench.meters.process_tree import children, end_below, end_orphans, hold_together, server_pid
from model.verification.outside_judge import Judge
from model.verification.process_memory import ProcessMemory, memory_of
from model.verification.tensor_places import AGAIN, RIGHT, UNJUDGED, WRONG, PlacesStatement, is_statement

# Time for a process to end after it has closed its connection.
FAREWELL_SECONDS = 5.0

_CONTEXT = multiprocessing.get_context("forkserver")
# pytest is there for the children of the `pytest` command, which import it as their main module.
_MODULES = ["pytest", "bench.meters.child", "bench.meters.clock", "bench.meters.warm"]
_CONTEXT.set_forkserver_preload(_MODULES)

# Warnings in the processes of loads: torch's about a checkpoint would stand between the dots of the run. What someone
# asks for by PYTHONWARNINGS comes after it, and so before it; what torch says where there is no NumPy is never of use.
UNHEEDED, ALWAYS_UNHEEDED = "ignore", "ignore:Failed to initialize NumPy:UserWarning"
# The same of what transformers logs, and of its bars, unless somebody asks for them.
QUIET = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
# The variable that names the user's modules to the fork server.
PRELOADED = "WEIGHT_LOADING_PRELOADED"
_preloaded: list[str] = []

# Beginnings of the messages of a child's check about a wrong model.
FOUND_WRONG = ("WrongModel: ", "UntrustedCheckpoint: ")

Message = TypeVar("Message")


class LoadEnded(Exception):
    """A load that did not end as it should."""

    @property
    def message(self) -> str:
        """The reason, and the traceback if there is one."""
        return "\n".join((str(self), *getattr(self, "__notes__", ())))


class LoadDied(LoadEnded):
    """The end of a load's process before it sent its figures; `timed_out` is the limit it passed, in words."""

    def __init__(self, message: str, timed_out: str = "") -> None:
        super().__init__(message)
        self.timed_out = timed_out


class LoadFailed(LoadEnded):
    """An exception in a load's process: of the load, its first logits or its check."""


@dataclass(frozen=True)
class ChildFailure:
    """An exception of a child as text: the exception may not survive pickling."""

    kind: str
    message: str
    trace: str


@contextmanager
def telling_failures(connection: Connection) -> Iterator[None]:
    """Send a `ChildFailure` for whatever is raised in this block of a child."""
    try:
        yield
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent is to say it
        connection.send(ChildFailure(type(error).__name__, str(error), traceback.format_exc()))


# Held while a process is started, or ended: some threads may have loads of their own.
_CHANGING = RLock()


@dataclass(frozen=True)
class ProcessSurroundings:
    """Files in the folder of shared memory, and processes below the fork server, before a process was started."""

    names: frozenset[str]
    processes: frozenset[int]


@dataclass(frozen=True)
class Child:
    """A child process, the connection to it, and the watcher of the memory that it holds outside of itself.

    `memory` reads its memory, where the system allows that.
    """

    process: ForkServerProcess
    connection: Connection
    limit_seconds: float
    outside_watcher: OutsideWatcher
    before: ProcessSurroundings
    memory: ProcessMemory | None = None

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def kill(self) -> None:
        """End it, and all processes that it has started."""
        if self.process.is_alive():
            self.outside_watcher.look()
            end_below(self.pid)
        self.process.kill()

    def end(self) -> None:
        """End it, and wait until it is gone, with its processes and its shared memory."""
        self.kill()
        # A process that another thread is starting is nobody's orphan.
        with _CHANGING:
            self.process.join()
            end_orphans(self.before.processes)
        self.outside_watcher.remove(self.before.names)

    def deadline(self) -> float:
        """Return the second on the monotonic clock by which a request made now has to be done."""
        return time.monotonic() + self.limit_seconds

    def receive(self, kind: type[Message], deadline: float) -> Message:
        """Return the child's next message, of this kind.

        Raises `LoadDied` if the process is killed, crashes, or sends nothing until the deadline, and `LoadFailed`, with
        the exception's own words, if anything in it raised.
        """
        try:
            content = received(self.connection, self.process.sentinel, deadline)
        except TimeoutError:
            late = f"not done within {self.limit_seconds:g} s"
            raise LoadDied(f"the load was ended: it was {late}", late) from None
        except ValueError as error:
            raise LoadFailed(f"the process of the load sent {error}") from None
        except (EOFError, ConnectionResetError):
            self.process.join(FAREWELL_SECONDS)
            raise LoadDied(f"the process of the load died: {_manner_of_death(self.process.exitcode)}") from None
        try:
            # Pickled as `Connection.send` does.
            message = PlacesStatement.of(content) if is_statement(content) else pickle.loads(content)  # noqa: S301 - of the suite's own child
        except Exception as error:  # noqa: BLE001 - a loader may have written anything
            raise LoadFailed(f"the process of the load sent what cannot be read: {type(error).__name__}") from None
        if isinstance(message, ChildFailure):
            failed = LoadFailed(f"{message.kind}: {message.message}")
            failed.add_note(message.trace)
            raise failed
        if isinstance(message, kind):
            return message
        if isinstance(message, PlacesStatement):
            # Nobody looks: the child compares what it has.
            self.connection.send_bytes(UNJUDGED)
            return self.receive(kind, deadline)
        raise LoadFailed(f"the process of the load sent {type(message).__name__}, where {kind.__name__} is due")

    def require_right(self, judge: Judge | None, instead: type[Any], deadline: float) -> None:
        """Have `judge` compare the model whose places the child tells next. Raises `LoadFailed` if it is wrong.

        If the child finds that too, the error has the child's words, which come instead of the message `instead`.
        """
        if judge is None or self.memory is None:
            return

        def again() -> PlacesStatement:
            self.connection.send_bytes(AGAIN)
            return self.receive(PlacesStatement, deadline)

        wrong = judge(self.memory, self.receive(PlacesStatement, deadline), again)
        self.connection.send_bytes(WRONG if wrong else RIGHT)
        if not wrong:
            return
        try:
            self.receive(instead, deadline)
        except LoadEnded as error:
            # A child finds the wrong value of a wrong model; any other message may be that of a replaced check.
            if str(error).startswith(FOUND_WRONG):
                raise
        raise LoadFailed(f"{wrong}; the process of the load does not find it: its loader has changed what compares")


@contextmanager
def child_process(run: Callable[[Connection, Any], object], task: object, limit_seconds: float) -> Iterator[Child]:
    """Call `run(connection, task)` in a fresh process, which ends with this block at the latest."""
    connection, other_end = _CONTEXT.Pipe()
    process = _CONTEXT.Process(target=_begin, args=(run, other_end, task), daemon=True)
    warm_up()
    before, since = _surroundings(), time.time()
    _start(process)
    other_end.close()
    assert process.pid is not None
    with memory_of(process.pid) as memory:
        child = Child(process, connection, limit_seconds, OutsideWatcher(process.pid, since), before, memory)
        try:
            yield child
        finally:
            child.end()
            connection.close()


def _surroundings() -> ProcessSurroundings:
    return ProcessSurroundings(shared_memory.names(), frozenset(children(server_pid() or 0)))


def _begin(run: Callable[[Connection, Any], object], connection: Connection, task: object) -> None:
    """Run in the process of a load."""
    hold_together()
    run(connection, task)


def preload(references: Iterable[str] = (), modules: Iterable[str] = ()) -> None:
    """Make the fork server import, when it starts, the modules of these references, see `Reference`, and others."""
    _preloaded.extend(references)
    # The last one has all that was imported stay.
    _MODULES[-1:-1] = modules
    _CONTEXT.set_forkserver_preload(_MODULES)


def warm_up() -> None:
    """Start the fork server, unless it runs: its imports take seconds, in which this process can go on."""
    _end_server_at_exit()
    with _own_environment():
        forkserver.ensure_running()


def _start(process: ForkServerProcess) -> None:
    """Start a child, and the fork server with the first one."""
    _end_server_at_exit()
    with _own_environment():
        process.start()


@cache
def _end_server_at_exit() -> None:
    # After children, which it tells how they ended.
    Finalize(None, end_server, exitpriority=-90)


def end_server() -> None:
    """Kill the fork server, and all below it: while it imports, it does not notice that nobody needs it any more."""
    if pid := server_pid():
        end_below(pid)
        os.kill(pid, signal.SIGKILL)


@contextmanager
def _own_environment() -> Iterator[None]:
    """Set the environment in which a fork server finds its modules where this process does, and SIGINT waits for them.

    Ctrl-C at a terminal is for this process too, which ends the server; `bench.meters.warm` unblocks SIGINT again.
    """
    paths = os.pathsep.join(filter(None, sys.path))
    warnings = ",".join(filter(None, (UNHEEDED, os.environ.get("PYTHONWARNINGS"), ALWAYS_UNHEEDED)))
    # Without the last, a module of the folder that the run was started in would be found before the suite's.
    own = {"PYTHONPATH": paths, "PYTHONWARNINGS": warnings, PRELOADED: "\n".join(_preloaded), "PYTHONSAFEPATH": "1"}
    # Its start unblocks SIGINT.
    resource_tracker.ensure_running()
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        # All threads have one environment.
        with _CHANGING, patch.dict(os.environ, QUIET | os.environ | own):
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)


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
