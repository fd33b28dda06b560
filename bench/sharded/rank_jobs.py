"""The work of all ranks of a case: their jobs and clocks, and their places in a process group."""

from collections.abc import Callable, Mapping
from functools import partial

from bench.measure.jobs import check_of
from bench.measure.load_process import run_load
from bench.meters import device_meter
from bench.meters.child import Job
from bench.meters.clock import LoadClock
from bench.sharded.rank_context import RankContext
from bench.sharded.rank_loads import RankLoad, rank_clock, rehearse_rank
from bench.sharded.rendezvous import RankRendezvous
from bench.sharded.sharded_case import ShardedCase
from model.checkpoints.checkpoint import Checkpoint


def rank_jobs(
    case: ShardedCase,
    rendezvous: RankRendezvous,
    checkpoint: Checkpoint,
    rehearsal: Checkpoint,
    *,
    explained: bool = False,
) -> Callable[[str], Mapping[int, Job]]:
    """Return what the processes of this process's ranks have to do, in a group of a name."""

    def jobs(name: str) -> dict[int, Job]:
        return {
            rank: _rank_job(
                case,
                rank_load(case, context_of(case, rendezvous, name, rank)),
                checkpoint,
                rehearsal,
                explained=explained,
            )
            for rank in case.measured_ranks
        }

    return jobs


def rank_clocks(
    case: ShardedCase, rendezvous: RankRendezvous, checkpoint: Checkpoint, rehearsal: Checkpoint
) -> Callable[[str], Mapping[int, Callable[[], LoadClock]]]:
    """Return the clocks of the same."""

    def clocks(name: str) -> dict[int, Callable[[], LoadClock]]:
        return {
            rank: partial(
                rank_clock,
                case.device_of(rank),
                rank_load(case, context_of(case, rendezvous, name, rank)),
                checkpoint,
                rehearsal,
            )
            for rank in case.group.local
        }

    return clocks


def context_of(case: ShardedCase, rendezvous: RankRendezvous, name: str, rank: int) -> RankContext:
    """Return a rank's place in a group of this name."""
    return RankContext(
        rank=rank,
        count=case.group.count,
        name=name,
        address=rendezvous.address,
        node_count=len(case.measured_ranks) if case.planned else case.group.node_count,
        timeout_seconds=case.timeout_seconds,
        simulated=case.simulated,
        alone=case.group.address is None,
    )


def rank_load(case: ShardedCase, context: RankContext) -> RankLoad:
    """Return the strategy as a rank loads with it."""
    return RankLoad(case.strategy.load, context, case.division)


def _rank_job(
    case: ShardedCase, load: RankLoad, checkpoint: Checkpoint, rehearsal: Checkpoint, *, explained: bool
) -> Job:
    device = case.device if case.simulated else case.device_of(load.context.rank)
    meter = partial(device_meter, device, case.strategy.source, planned=case.planned, explained=explained)
    return Job(
        meter=meter,
        rehearse=partial(rehearse_rank, load, checkpoint, rehearsal, check_of(case)),
        load=partial(run_load, load, checkpoint),
        # To compute FSDP2 gathers block after block: that is not the load's.
        use=None,
        check=partial(check_of(case), checkpoint, meter().device),
    )
