"""Calls in forks of this process, where CUDA has not begun: a fork of a process that has begun it cannot use it."""

import multiprocessing
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Generic, TypeVar

_CONTEXT = multiprocessing.get_context("fork")

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class CallFailed:
    """A call that returned nothing: the exception that it raised, or how its process ended."""

    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}" if self.message else self.kind


class ForkFailed(Exception):
    """The failure of a fork to do what comparisons need."""


class _Fork(Generic[Answer]):
    def __init__(self, call: Callable[[], Answer]) -> None:
        self.pipe, sends = _CONTEXT.Pipe(duplex=False)
        self._answer: Answer | CallFailed | None = None
        self._process = _CONTEXT.Process(target=_answer, args=(sends, call))
        with warnings.catch_warnings():
            # From Python 3.12 on: threads are missing in a fork. Nobody waits for those that are there.
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
            self._process.start()
        sends.close()

    @property
    def runs(self) -> bool:
        """Return True until its answer has been read."""
        return not self.pipe.closed

    def answer(self) -> Answer | CallFailed:
        """Wait for the end of the call, and return its answer."""
        if self.runs:
            try:
                self._answer = self.pipe.recv()
                self._process.join()
            except EOFError:
                self._process.join()
                self._answer = CallFailed("died", f"the process of the call ended with status {self._process.exitcode}")
            finally:
                self.pipe.close()
        return self._answer  # type: ignore[return-value]


def in_forks(calls: Iterable[Callable[[], Answer]], at_once: int = 1) -> Iterator[Answer | CallFailed]:
    """Make each call in a fork of its own, so many at a time, and yield what they return, in their order."""
    forks: deque[_Fork[Answer]] = deque()
    for call in calls:
        while len(running := [fork for fork in forks if fork.runs]) == at_once:
            ready = wait([fork.pipe for fork in running])
            for fork in running:
                if fork.pipe in ready:
                    fork.answer()
        while forks and not forks[0].runs:
            yield forks.popleft().answer()
        forks.append(_Fork(call))
    while forks:
        yield forks.popleft().answer()


def in_fork(call: Callable[[], Answer]) -> Answer | CallFailed:
    """Make one call in a fork."""
    return next(in_forks([call]))


def answered(answer: Answer | CallFailed) -> Answer:
    """Return an answer. Raises `ForkFailed`, in one line, if the call failed."""
    if isinstance(answer, CallFailed):
        raise ForkFailed(str(answer))
    return answer


def attempted(call: Callable[[], Answer]) -> Answer | CallFailed:
    """Return the result of a call, or its exception: the simulator refuses with one that is no `Exception`."""
    try:
        return call()
    except BaseException as error:  # noqa: BLE001 - see above
        return CallFailed(type(error).__name__, str(error).partition("\n")[0])


def _answer(sends: Connection, call: Callable[[], object]) -> None:
    sends.send(attempted(call))
