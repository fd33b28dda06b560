"""Planned ranks take what measured ones do, and those that are planned by one are alike."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from bench.conftest import LIMIT_SECONDS
from bench.measure.peak_fields import peaks
from bench.sharded.measure_ranks import measure_ranks
from bench.sharded.rank_group import RankGroup, local_group
from bench.sharded.rank_jobs import rank_jobs
from bench.sharded.recipes import SHARDED
from bench.sharded.rendezvous import RankRendezvous
from bench.sharded.sharded_case import ShardedCase
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.specification import Specification
from model.parallel.division import PARALLELISMS, Division

Make = Callable[[Specification], Checkpoint]
Figures = dict[int, dict[str, int | None]]

ON_DEVICE = tuple(f"device_{figure}_peak_bytes" for figure in ("requested", "allocated", "reserved"))
BESIDE = ("host_pinned_peak_bytes", "host_file_peak_bytes", "host_private_peak_bytes")

pytestmark = pytest.mark.ranks
every_way = pytest.mark.parametrize("way", PARALLELISMS)


def figures(case: ShardedCase, checkpoint: Checkpoint, rehearsal: Checkpoint, *names: str) -> Figures:
    rendezvous = RankRendezvous(case.group)
    measured = measure_ranks(rendezvous, rank_jobs(case, rendezvous, checkpoint, rehearsal), LIMIT_SECONDS)
    taken = {rank: peaks(one, case.state_bytes) for rank, one in measured.items()}
    return {rank: {name: one[name] for name in names} for rank, one in taken.items()}


@every_way
@pytest.mark.parametrize("strategy", [name for name in ("dcp", "dcp_safetensors") if not SHARDED[name].skip_reason])
def test_a_planned_rank_takes_what_a_measured_one_takes_of_the_device(
    strategy: str, way: str, planned_checkpoint: Make, real_checkpoint: Make
) -> None:
    case = ShardedCase(strategy, "tiny", "sim", "float32", division=Division(way), group=local_group(2))
    rehearsal = real_checkpoint(case.rehearsal)
    measured = figures(case, real_checkpoint(case.specification), rehearsal, *ON_DEVICE)
    plan = replace(case, planned=True, group=RankGroup(2, (0,), 2))
    planned = figures(plan, planned_checkpoint(plan.specification), rehearsal, *ON_DEVICE)
    # Two ranks of tiny differ by a row of its vocabulary, so both are planned.
    assert planned == measured
    assert set(planned) == {0, 1}
    assert None not in planned[0].values()


@every_way
@pytest.mark.parametrize("strategy", [name for name, one in SHARDED.items() if not (one.has_leader or one.skip_reason)])
def test_rank_0_takes_what_another_one_with_its_share_takes_where_it_does_not_lead(
    strategy: str, way: str, planned_checkpoint: Make, real_checkpoint: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = ShardedCase(
        strategy, "tiny", "sim", "float32", planned=True, division=Division(way), group=RankGroup(8, (0,), 8)
    )
    assert 1 not in case.measured_ranks
    monkeypatch.setattr(ShardedCase, "measured_ranks", (0, 1, 6))
    checkpoint, rehearsal = planned_checkpoint(case.specification), real_checkpoint(case.rehearsal)
    first, second, last = figures(case, checkpoint, rehearsal, *ON_DEVICE, *BESIDE).values()
    assert first == second == last
