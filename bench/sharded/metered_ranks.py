"""A load by many ranks whose memory is metered."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from bench.measure.checks import MeteredProcess
from bench.measure.peak_fields import peaks
from bench.meters.allocations import Alive
from bench.meters.measure import Measurement
from bench.meters.process import end_server
from bench.record.record import Fields, Record
from bench.sharded.measure_ranks import measure_ranks
from bench.sharded.rank_jobs import rank_jobs
from bench.sharded.rank_peaks import of_all_ranks
from bench.sharded.rendezvous import RankRendezvous
from bench.sharded.sharded_case import ShardedCase
from model.checkpoints.checkpoint import Checkpoint


@dataclass(frozen=True)
class MeteredRanks:
    """The loads of a case; see `Metered`. What was measured is a measurement a rank."""

    case: ShardedCase
    rendezvous: RankRendezvous
    checkpoint: Checkpoint
    rehearsal: Checkpoint

    def measure(self, *, explained: bool = False) -> dict[int, Measurement]:
        """Load in fresh processes, one a rank. Raises `RankFailed`."""
        jobs = rank_jobs(self.case, self.rendezvous, self.checkpoint, self.rehearsal, explained=explained)
        return measure_ranks(self.rendezvous, jobs, self.case.timeout_seconds)

    def alive(self, measured: Mapping[int, Measurement]) -> Alive:
        return measured[0].alive

    def fields(self, measured: Mapping[int, Measurement], _record: Record) -> Fields:
        return of_all_ranks(self.case, measured)

    def processes(self, measured: Mapping[int, Measurement], record: Record) -> Iterator[MeteredProcess]:
        for rank, one in measured.items():
            of_rank = record.with_fields(peaks(one, self.case.state_bytes))
            yield MeteredProcess(self.case, of_rank, one, self.case.shares[rank], rank)


class RankPlans:
    """Planned loads of a run, each measured once: its peaks are compared with theory, and with a budget.

    A plan keeps one core busy. Those that are to come are measured beside the one that is waited for.
    """

    def __init__(self, coming: Callable[[], Iterable[MeteredRanks]], beside: int) -> None:
        """`coming` returns the planned loads of the run in their order; `beside` of them are measured at a time."""
        self._coming, self._pool = coming, ThreadPoolExecutor(beside)
        self._known: dict[ShardedCase, Future[dict[int, Measurement]]] = {}

    def __enter__(self) -> "RankPlans":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        if any(not future.done() for future in self._known.values()):
            # The run ends early: nobody waits for what is measured. Threads may wait for processes that start.
            end_server()
        self._pool.shutdown()

    def measured(self, load: MeteredRanks) -> dict[int, Measurement]:
        """Return the measurements of a load; what is no plan is measured each time. Raises `RankFailed`."""
        if not load.case.planned:
            return load.measure()
        if not self._known:
            self._begin(self._coming())
        self._begin([load])
        return self._known[load.case].result()

    def _begin(self, loads: Iterable[MeteredRanks]) -> None:
        for load in loads:
            if load.case not in self._known:
                # Before any thread asks for it: all of them have to find the same store.
                assert load.rendezvous.address
                self._known[load.case] = self._pool.submit(load.measure)
