"""Promise: what a load by many processes takes in each of them is what theory says, no more and no less."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.meters.measure import Measurement
from bench.plugin.failures import ending
from bench.plugin.regression import MemoryRegression
from bench.record.record import Fields, Record, ratio
from bench.sharded.measure_ranks import measure_ranks
from bench.sharded.rendezvous import RankRendezvous
from bench.sharded.sharded_case import ShardedCase
from bench.sharded.share import rank_peak_checks
from bench.test_peak_memory import explained, leaks, peaks
from model.checkpoints.checkpoint import Checkpoint

# Of a record: the highest of any rank.
HIGHEST = (
    *("device_requested_peak_bytes", "device_allocated_peak_bytes", "device_reserved_peak_bytes"),
    *("device_driver_peak_bytes", "host_private_peak_bytes", "host_file_peak_bytes", "host_pinned_peak_bytes"),
    *("host_total_peak_bytes", "retained_bytes"),
)
# The same, and what of a rank is in the record beside it.
OF_A_RANK = (*HIGHEST, "read_bytes", "minor_faults", "major_faults")


@pytest.mark.sharded
@pytest.mark.ranks
def test_sharded_peak_memory(
    case: ShardedCase,
    rehearsal: Checkpoint,
    checkpoint: Checkpoint,
    meeting: RankRendezvous,
    benchmark: BenchmarkFixture,
    record: Record,
    find_regressions: Callable[[Record], dict[str, str]],
    explain: bool,
) -> None:
    """In fresh processes, one a rank: every weight right, every peak at its bound, and nothing left behind."""
    with ending(case):
        jobs = case.rank_jobs(meeting, checkpoint, rehearsal)
        measured = benchmark.pedantic(measure_ranks, args=(meeting, jobs, case.limit_seconds))
        record.update(of_all_ranks(case, measured))
        breaches = rank_breaches(case, record)
        grown = find_regressions(record)
        alive = measured[0].alive
        if (explain or breaches or grown) and not alive:
            explaining = case.rank_jobs(meeting, checkpoint, rehearsal, explained=True)
            alive = measure_ranks(meeting, explaining, case.limit_seconds)[0].alive
    if alive:
        record.alive_at_peak = {figure: [asdict(held) for held in holders] for figure, holders in alive.items()}
    left = [
        f"rank {rank}: {line}" for rank, measurement in measured.items() for line in leaks(measurement.kept, record)
    ]
    if problems := explained(breaches, alive) + left:
        pytest.fail("\n".join([*problems, *explained(grown, alive)]), pytrace=False)
    if grown:
        raise MemoryRegression("\n".join(explained(grown, alive)), pytrace=False)


def of_all_ranks(case: ShardedCase, measured: Mapping[int, Measurement]) -> Fields:
    """What was measured, in a record's fields: the highest of all ranks, what they come to together, and each one.

    Of a plan each stands for as many ranks as are `alike`, which do the same.
    """
    ranks = {rank: peaks(measurement, case.state_bytes) for rank, measurement in measured.items()}
    representative = case.representatives(measured)
    highest = {name: _highest(ranks, name) for name in HIGHEST}
    return highest | {
        "device_peak_ratio": ratio(highest["device_requested_peak_bytes"], case.state_bytes),
        "host_peak_ratio": ratio(highest["host_private_peak_bytes"], case.state_bytes),
        "read_bytes": _together(ranks, representative, range(case.team.count), "read_bytes", "host_file_peak_bytes"),
        "node_private_peak_bytes": _of_a_node(case, ranks, representative, "host_private_peak_bytes"),
        "node_file_peak_bytes": _of_a_node(case, ranks, representative, "host_file_peak_bytes"),
        "timeline": ranks[0]["timeline"],
        "per_rank": [
            {"rank": rank, "alike": representative.count(rank), "share_bytes": case.shares[rank].held_bytes}
            | {name: figures[name] for name in OF_A_RANK}
            for rank, figures in ranks.items()
        ],
    }


def _highest(ranks: Mapping[int, Fields], name: str) -> int | None:
    figures = [one[name] for one in ranks.values()]
    return None if None in figures else max(figures)


def _together(ranks: Mapping[int, Fields], representative: Sequence[int], some: range, *names: str) -> int | None:
    """The sum of figures over some ranks."""
    figures = [ranks[representative[rank]][name] for rank in some for name in names]
    return None if None in figures else sum(figures)


def _of_a_node(case: ShardedCase, ranks: Mapping[int, Fields], representative: Sequence[int], name: str) -> int | None:
    """The sum of a peak over the ranks of a node, of the one where it is highest."""
    sums = [_together(ranks, representative, node, name) for node in case.team.nodes()]
    return None if None in sums else max(filter(None, sums), default=0)


def rank_breaches(case: ShardedCase, record: Record) -> dict[str, str]:
    """Everything that is wrong with the peaks of ranks: the figure, and what is wrong in a line, of the first rank."""
    breaches: dict[str, str] = {}
    for figures in record.per_rank or ():
        rank = figures["rank"]
        for gate in rank_peak_checks(case.strategy, case.device, figures, case.shares[rank], record.tensors):
            if gate.breach:
                breaches.setdefault(gate.figure, f"rank {rank}: {gate.breach}")
    return breaches
