"""Calls in forks of this process, where CUDA has not begun: a fork of a process that has begun it cannot use it."""

import multiprocessing
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Generic, TypeVar

_CONTEXT = multiprocessing.get_context("fork")

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Failed:
    """A call that returned nothing: the exception that it raised, or how its process ended."""

    kind: str
    told: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.told}" if self.told else self.kind


class ForkFailed(Exception):
    """A fork failed to do what comparisons need."""


class _Fork(Generic[Answer]):
    def __init__(self, call: Callable[[], Answer]) -> None:
        self._answers, sends = _CONTEXT.Pipe(duplex=False)
        self._process = _CONTEXT.Process(target=_answer, args=(sends, call))
        with warnings.catch_warnings():
            # From Python 3.12 on: threads are missing in a fork. Nobody waits for those that are there.
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
            self._process.start()
        sends.close()

    def answer(self) -> Answer | Failed:
        try:
            return self._answers.recv()
        except EOFError:
            self._process.join()
            return Failed("died", f"the process of the call ended with status {self._process.exitcode}")
        finally:
            self._process.join()
            self._answers.close()


def in_forks(calls: Iterable[Callable[[], Answer]], at_once: int = 1) -> Iterator[Answer | Failed]:
    """Make each call in a fork of its own, so many at a time, and yield what they return, in their order."""
    running: deque[_Fork[Answer]] = deque()
    for call in calls:
        if len(running) == at_once:
            yield running.popleft().answer()
        running.append(_Fork(call))
    while running:
        yield running.popleft().answer()


def in_fork(call: Callable[[], Answer]) -> Answer | Failed:
    """Make one call in a fork."""
    return next(in_forks([call]))


def answered(answer: Answer | Failed) -> Answer:
    """An answer. Raises `ForkFailed` in one line where there is none."""
    if isinstance(answer, Failed):
        raise ForkFailed(str(answer))
    return answer


def attempted(call: Callable[[], Answer]) -> Answer | Failed:
    """What a call returns, or what it raises, whatever it is: the simulator refuses with what is no `Exception`."""
    try:
        return call()
    except BaseException as error:  # noqa: BLE001 - see above
        return Failed(type(error).__name__, str(error).partition("\n")[0])


def _answer(sends: Connection, call: Callable[[], object]) -> None:
    sends.send(attempted(call))
