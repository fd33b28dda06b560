"""Exchange of results between the processes that measure ranks: all of them end a step in the same way."""

import os
import pickle
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from itertools import count
from typing import Generic, TypeVar

from torch import distributed

from bench.meters.process import Child, LoadDied, LoadEnded
from bench.sharded.rank_group import RankGroup

LOCALHOST = "127.0.0.1"

# Between two looks at whether a rank elsewhere has failed.
POLL_SECONDS = 0.1
# What others have to say what they ran into, when one has failed: they hear of it by their connections to it.
GRACE_SECONDS = 2.0
# What processes of other ranks may take beyond the limit of a step until they are heard of.
HEARING_SECONDS = 30.0
# What it may take to be told of what they have said already.
ANSWER_SECONDS = 0.1

# Of what is said when another rank is gone: the words of Gloo and NCCL, and the classes of PyTorch's own errors.
FOLLOWS = (
    *("Connection closed by peer", "Connection reset by peer", "gloo", "NCCL", "Broken pipe"),
    *("DistBackendError", "DistNetworkError", "DistStoreError", "AnotherRankFailed"),
)

Value = TypeVar("Value")


class RankFailed(LoadEnded):
    """A load of many ranks did not come to its end: the message names the rank that it failed in, and why."""


@dataclass(frozen=True)
class RankError:
    """The reason why a rank failed; it `follows` from 0 nothing, 1 another rank's end, 2 being ended for that."""

    reason: str
    notes: tuple[str, ...]
    follows: int


@dataclass(frozen=True)
class StepResult(Generic[Value]):
    """The result of a step in one rank."""

    value: Value | None = None
    error: RankError | None = None


class RankRendezvous:
    """The exchange of a group's processes. All of them take the same steps in the same order."""

    def __init__(self, group: RankGroup) -> None:
        self.group = group
        self._steps = count()

    def name(self) -> str:
        """Return a name that no other step has: the same in all processes."""
        return f"step-{next(self._steps)}"

    @cached_property
    def _store(self) -> "distributed.TCPStore":
        """The store that `torchrun` has started, or that this process starts for its ranks."""
        if self.group.address is None:
            return distributed.TCPStore(LOCALHOST, 0, is_master=True, wait_for_workers=False)
        # Its agent has one, unless it says otherwise.
        hosts = self.group.leads and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        return distributed.TCPStore(*self.group.address, is_master=hosts, wait_for_workers=False)

    @property
    def address(self) -> tuple[str, int]:
        """The address of the store in which ranks find each other."""
        return self.group.address or (LOCALHOST, self._store.port)

    def agree(self, objection: str | None, timeout_seconds: float) -> str | None:
        """Return the objection of the first rank of all that has one; None: there is none."""
        if self._is_alone:
            return objection
        mine = {rank: StepResult(objection) for rank in self.group.local}
        results = self._exchange(self.name(), mine, timeout_seconds)
        objections = {rank: one.error.reason if one.error else one.value for rank, one in sorted(results.items())}
        return next((f"rank {rank}: {objection}" for rank, objection in objections.items() if objection), None)

    def together(
        self, children: Mapping[int, Child], ask: Callable[[int, Child], Value], timeout_seconds: float
    ) -> dict[int, Value]:
        """Ask the processes of this process's ranks at once, and return the answers of all ranks, here or not.

        Raises `RankFailed`, the same in all processes, if any failed: its rank, and why. The others are ended then.
        """
        name = self.name()
        results = self._exchange(name, self._ask(name, children, ask), timeout_seconds)
        errors = {rank: one.error for rank, one in results.items() if one.error}
        if errors:
            rank = min(errors, key=lambda rank: (errors[rank].follows, rank))
            failed = RankFailed(f"rank {rank} of {self.group.count}: {errors[rank].reason}")
            for note in errors[rank].notes:
                failed.add_note(note)
            raise failed
        return {rank: one.value for rank, one in sorted(results.items())}  # type: ignore[misc]

    def _ask(
        self, name: str, children: Mapping[int, Child], ask: Callable[[int, Child], Value]
    ) -> dict[int, StepResult[Value]]:
        """Return the result in every rank of this process."""
        results: dict[int, StepResult[Value]] = {}
        ended: set[int] = set()
        end_at: float | None = None
        with ThreadPoolExecutor(max(1, len(children))) as pool:
            asked = {pool.submit(ask, rank, child): rank for rank, child in children.items()}
            try:
                pending = set(asked)
                while pending:
                    done, pending = wait(pending, POLL_SECONDS, FIRST_COMPLETED)
                    for future in done:
                        results[asked[future]] = _result_of(future, was_ended=asked[future] in ended)
                    if end_at is None and self._any_failed(name, results):
                        end_at = time.monotonic() + GRACE_SECONDS
                    if end_at is not None and time.monotonic() > end_at:
                        for rank in {asked[future] for future in pending} - ended:
                            ended.add(rank)
                            children[rank].kill()
            except BaseException:
                # Threads that wait for a process would be waited for.
                for child in children.values():
                    child.kill()
                raise
        return results

    def _any_failed(self, name: str, results: Mapping[int, StepResult[Value]]) -> bool:
        """Return True if a rank of this process has failed, which others are told, or one of another's."""
        failed = any(one.error for one in results.values())
        if self._is_alone:
            return failed
        if failed:
            self._store.set(f"{name}/failed", "1")
        return self._store.check([f"{name}/failed"])

    @property
    def _is_alone(self) -> bool:
        return self.group.address is None

    def _exchange(
        self, name: str, mine: Mapping[int, StepResult[Value]], seconds: float
    ) -> Mapping[int, StepResult[Value]]:
        """Return the results of all ranks."""
        if self._is_alone:
            return mine
        for rank, one in mine.items():
            self._store.set(f"{name}/{rank}", pickle.dumps(one))  # type: ignore[arg-type]  # of bytes too
        results = dict(mine)
        until = time.monotonic() + seconds + HEARING_SECONDS
        for rank in (rank for rank in range(self.group.count) if rank not in mine):
            # What is there already is heard, however late it is: a busy machine may take a while to tell of it.
            left = max(ANSWER_SECONDS, until - time.monotonic())
            try:
                self._store.wait([f"{name}/{rank}"], timedelta(seconds=left))
                results[rank] = pickle.loads(self._store.get(f"{name}/{rank}"))  # noqa: S301 - from a process of this run
            except distributed.DistError:
                results[rank] = StepResult(error=RankError(f"it sent nothing for {seconds:g} s", (), 1))
        return results


def _result_of(future: "Future[Value]", *, was_ended: bool) -> StepResult[Value]:
    error = future.exception()
    if error is None:
        return StepResult(future.result())
    if not isinstance(error, Exception):
        raise error
    message = str(error) if isinstance(error, LoadEnded) else f"{type(error).__name__}: {error}"
    # Some tell a traceback, and what it came to in its last line.
    first, *others = message.strip().splitlines()
    reason = f"{first}: {others[-1].strip()}" if others else first
    if was_ended and isinstance(error, LoadDied):
        return StepResult(error=RankError("was ended, since another rank had failed", (), 2))
    follows = int(not isinstance(error, LoadDied) and any(word in message for word in FOLLOWS))
    return StepResult(error=RankError(reason, tuple(getattr(error, "__notes__", ())), follows))
