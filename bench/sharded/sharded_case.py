"""One measurement of many processes: which strategy loads which checkpoint, divided how among how many ranks."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial

import psutil

from bench.measure.bounds import expected_peaks
from bench.measure.case import Case
from bench.measure.loads import run_load
from bench.meters import device_meter
from bench.meters.child import Job
from bench.meters.clock import LoadClock
from bench.record.record import Record, ratio
from bench.sharded.rank_context import RankContext
from bench.sharded.rank_group import RankGroup, local_group
from bench.sharded.rank_loads import RankLoad, rank_clock, rehearse_rank
from bench.sharded.recipes import SHARDED, ShardedStrategy
from bench.sharded.rendezvous import RankRendezvous
from bench.sharded.share import Share, shares
from model.architecture import Architecture
from model.checkpoints import Checkpoint
from model.parallel import PARALLELISMS

ALONE = local_group(1)


@cache
def _shares(architecture: Architecture, parallelism: str, count: int) -> list[Share]:
    return shares(architecture.skeleton(), PARALLELISMS[parallelism], count)


@dataclass(frozen=True)
class ShardedCase(Case):
    """The names of a measurement of all ranks of a group; `parallelism` is one of `PARALLELISMS`."""

    parallelism: str = "fsdp"
    group: RankGroup = ALONE

    def __str__(self) -> str:
        return f"{self.strategy_name}-{self.parallelism}-{self.size}-x{self.group.count}-{self.device}"

    @property
    def row(self) -> str:
        return Record(strategy=self.strategy_name, parallelism=self.parallelism, ranks=self.group.count).row

    @property
    def strategy(self) -> ShardedStrategy:
        return SHARDED[self.strategy_name]

    @property
    def _row(self) -> ShardedStrategy:
        return self.strategy

    @property
    def why_not(self) -> str | None:
        if self.planned and not self.strategy.plannable:
            return f"{self.strategy_name} cannot be planned: its reader wants bytes"
        return self.strategy.why_not

    @property
    def simulated(self) -> bool:
        """Whether no rank hears of another: what is sent is not."""
        return not self._has_values

    @property
    def shares(self) -> list[Share]:
        """What theory says of every rank."""
        return _shares(self.specification.architecture, self.parallelism, self.group.count)

    @property
    def measured_ranks(self) -> tuple[int, ...]:
        """The ranks that this process measures: of a plan one of all that have the same to do."""
        if not self.planned:
            return self.group.local
        first: dict[Share, int] = {}
        for rank, one in enumerate(self.shares):
            first.setdefault(one, rank)
        return tuple(first.values())

    def representatives(self, measured: Iterable[int]) -> list[int]:
        """Of every rank of the group, a measured one that has the same to do."""
        kinds = {self.shares[rank]: rank for rank in measured} if self.planned else {}
        return [kinds.get(one, rank) for rank, one in enumerate(self.shares)]

    def bound_bytes(self, figure: str) -> int | None:
        """The highest that theory says of a figure in any rank."""
        expression = expected_peaks(self.strategy, self.device).get(figure)
        return max(one.most_bytes(expression) for one in self.shares) if expression else None

    def shortage(self) -> str | None:
        """Which memory is too small for the loads of all ranks on this machine."""
        if self.planned:
            return None
        said = expected_peaks(self.strategy, self.device)
        host, device = said.get("host_private_peak_bytes"), said.get("device_requested_peak_bytes")
        on_host = sum(self.shares[rank].bound_bytes(host) for rank in self.group.local) if host else 0
        free = psutil.virtual_memory().available
        if on_host > free:
            return f"takes {on_host / 1e9:.1f} GB of host memory in all ranks, {free / 1e9:.1f} GB are free"
        for rank in self.group.local:
            on_device = self.shares[rank].bound_bytes(device) if device else 0
            free_on_device = device_meter(self.device_of(rank)).free_bytes()
            if free_on_device is not None and on_device > free_on_device:
                return f"takes {on_device / 1e9:.1f} GB of device memory, {free_on_device / 1e9:.1f} GB are free"
        return None

    def device_of(self, rank: int) -> str:
        """The device of a rank of this process."""
        return f"cuda:{self.group.device_index(rank)}" if self.device == "cuda" else self.device

    def blank_record(self) -> Record:
        count = self.group.count
        return replace(
            super().blank_record(),
            ranks=count,
            parallelism=self.parallelism,
            share_bytes=max(one.held_bytes for one in self.shares),
            device_bound_ratio=ratio(self.bound_bytes("device_requested_peak_bytes"), self.state_bytes),
            limit=None,
        )

    @property
    def state_bytes(self) -> int:
        return self.specification.footprint.state_bytes

    def rank_jobs(
        self, rendezvous: RankRendezvous, checkpoint: Checkpoint, rehearsal: Checkpoint, *, explained: bool = False
    ) -> Callable[[str], Mapping[int, Job]]:
        """What the processes of this process's ranks have to do, in a group of a name."""

        def jobs(name: str) -> dict[int, Job]:
            return {
                rank: self._rank_job(
                    self.rank_load(self.context(rendezvous, name, rank)), checkpoint, rehearsal, explained=explained
                )
                for rank in self.measured_ranks
            }

        return jobs

    def rank_clocks(
        self, rendezvous: RankRendezvous, checkpoint: Checkpoint, rehearsal: Checkpoint
    ) -> Callable[[str], Mapping[int, Callable[[], LoadClock]]]:
        """The clocks of the same."""

        def clocks(name: str) -> dict[int, Callable[[], LoadClock]]:
            return {
                rank: partial(
                    rank_clock,
                    self.device_of(rank),
                    self.rank_load(self.context(rendezvous, name, rank)),
                    checkpoint,
                    rehearsal,
                )
                for rank in self.group.local
            }

        return clocks

    def context(self, rendezvous: RankRendezvous, name: str, rank: int) -> RankContext:
        """A rank's place in a group of this name."""
        return RankContext(
            rank=rank,
            count=self.group.count,
            name=name,
            address=rendezvous.address,
            node_count=len(self.measured_ranks) if self.planned else self.group.node_count,
            limit_seconds=self.limit_seconds,
            simulated=self.simulated,
            alone=self.group.address is None,
        )

    def rank_load(self, context: RankContext) -> RankLoad:
        """The strategy as a rank loads with it."""
        return RankLoad(self.strategy.load, context, self.parallelism)  # type: ignore[arg-type]

    def _rank_job(self, load: RankLoad, checkpoint: Checkpoint, rehearsal: Checkpoint, *, explained: bool) -> Job:
        device = self.device if self.simulated else self.device_of(load.context.rank)
        meter = partial(device_meter, device, self.strategy.source, planned=self.planned, explained=explained)
        return Job(
            meter=meter,
            rehearse=partial(rehearse_rank, load, checkpoint, rehearsal, self._check),
            load=partial(run_load, load, checkpoint),
            # To compute FSDP2 gathers block after block: that is not the load's.
            use=None,
            check=partial(self._check, checkpoint, meter().device),
        )
