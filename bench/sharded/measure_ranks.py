"""Loads of all ranks at once: measured, and timed."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from bench.meters.child import Job, run
from bench.meters.clock import LoadClock, Readings, RemoteClock, serve
from bench.meters.measure import Measurement, best_of, measure_child
from bench.meters.process import Child, child_process
from bench.sharded.rendezvous import RankRendezvous

# Of the ranks that this process starts, for a group of this name.
Jobs = Callable[[str], Mapping[int, Job]]
Clocks = Callable[[str], Mapping[int, Callable[[], LoadClock]]]


def measure_ranks(rendezvous: RankRendezvous, jobs: Jobs, timeout_seconds: float) -> dict[int, Measurement]:
    """Measure the load in every rank. Raises `RankFailed`, see `RankRendezvous.together`."""
    ranks: list[int] = []

    def once(closely: bool) -> list[Measurement]:
        mine = jobs(rendezvous.name())
        with ExitStack() as stack:
            children = {
                rank: stack.enter_context(child_process(run, job, timeout_seconds)) for rank, job in mine.items()
            }
            measured = rendezvous.together(
                children,
                lambda rank, child: measure_child(child, mine[rank], closely=closely),
                timeout_seconds,
            )
        ranks[:] = measured
        return list(measured.values())

    best = best_of(once)
    return dict(zip(ranks, best, strict=True))


class RankClocks:
    """A clock in every rank, all asked at once."""

    def __init__(self, rendezvous: RankRendezvous, children: Mapping[int, Child], timeout_seconds: float) -> None:
        self._rendezvous, self._children, self._timeout_seconds = rendezvous, children, timeout_seconds

    def load_and_use(self) -> None:
        self._ask("load_and_use")

    def begin_round(self) -> None:
        self._ask("begin_round")

    def finish_round(self) -> None:
        self._ask("finish_round")

    def readings(self) -> dict[int, Readings]:
        return self._ask("")

    def _ask(self, method: str) -> dict[int, Readings]:
        return self._rendezvous.together(
            self._children, lambda _, child: RemoteClock(child).ask(method), self._timeout_seconds
        )


@contextmanager
def clocks_apart(rendezvous: RankRendezvous, clocks: Clocks, timeout_seconds: float) -> Iterator[RankClocks]:
    """A clock a rank, in a process of its own."""
    with ExitStack() as stack:
        children = {
            rank: stack.enter_context(child_process(serve, clock, timeout_seconds))
            for rank, clock in clocks(rendezvous.name()).items()
        }
        yield RankClocks(rendezvous, children, timeout_seconds)
