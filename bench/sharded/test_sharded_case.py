from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from bench.measure.checks import findings
from bench.measure.expected import blank_record, shortage
from bench.measure.refusals import skip_reason
from bench.meters.cuda import CudaMeter
from bench.sharded.metered_ranks import MeteredRanks
from bench.sharded.rank_group import RankGroup, local_group
from bench.sharded.rank_peaks import HIGHEST, OF_A_RANK, of_all_ranks
from bench.sharded.recipes import SHARDED
from bench.sharded.rendezvous import RankRendezvous
from bench.sharded.sharded_case import ShardedCase
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.specification import Specification
from model.parallel.division import PARALLELISMS, Division
from model.user.reference import Reference
from model.user.source import Source
from model.user.user_model import UserModel


def planned(count: int, parallelism: str = "fsdp") -> ShardedCase:
    return ShardedCase(
        *("streamed", "tiny", "sim", "float32"),
        planned=True,
        division=Division(parallelism),
        group=RankGroup(count, (0,), 8),
    )


def test_its_name_says_how_many_divide_it_how() -> None:
    assert str(planned(64)) == "streamed-fsdp-tiny-x64-sim"
    assert planned(1024, "tensor").row == "streamed tensor x1024"


@pytest.mark.parametrize("parallelism", PARALLELISMS)
@pytest.mark.parametrize(
    ("count", "expected"),
    [
        # Rank 0, and the last with what is left of 50,257 rows of 786.
        (64, (0, 63)),
        # Dimensions of 64 and 256 are used up in turn; of 50 rows each rank 1,005 has 7, and the others have none.
        (1024, (0, 64, 256, 1005, 1006)),
    ],
)
def test_a_plan_measures_one_of_all_ranks_that_have_the_same_to_do(
    parallelism: str, count: int, expected: tuple[int, ...]
) -> None:
    case = planned(count, parallelism)
    assert case.measured_ranks == expected
    representatives = case.representatives(case.measured_ranks)
    assert len(representatives) == count
    assert [replace(case.shares[rank], leads=False) for rank in representatives] == [
        replace(one, leads=False) for one in case.shares
    ]
    assert set(representatives) == set(expected)


def test_rank_0_is_planned_by_itself_where_it_leads() -> None:
    leading = replace(planned(64), strategy_name="broadcast")
    assert leading.measured_ranks == (0, 1, 63)
    assert [rank for rank, one in enumerate(leading.representatives((0, 1, 63))) if one == 0] == [0]


@pytest.mark.ranks
@pytest.mark.parametrize("count", [8, 64])
@pytest.mark.parametrize("strategy", ["streamed", "mmap_shards"])
def test_a_plan_says_what_every_rank_takes(
    strategy: str,
    count: int,
    planned_checkpoint: Callable[[Specification], Checkpoint],
    real_checkpoint: Callable[[Specification], Checkpoint],
) -> None:
    case = replace(planned(count), strategy_name=strategy)
    checkpoint, rehearsal = planned_checkpoint(case.specification), real_checkpoint(case.rehearsal)
    load, record = MeteredRanks(case, RankRendezvous(case.group), checkpoint, rehearsal), blank_record(case)
    found = findings(load, record, load.measure(), lambda _: {}, explain=False)
    assert (found.problems, found.grown) == ([], [])
    assert record.per_rank
    assert sum(rank["alike"] for rank in record.per_rank) == count
    assert record.per_rank[0]["alike"] > 1
    assert record.read_bytes is None
    share = max(one.held_bytes for one in case.shares)
    assert (record.device_requested_peak_bytes or 0) >= share > case.state_bytes / count


DECODER = UserModel(Reference("bench.selftest.decoder:decoder"), cast="bfloat16")


@pytest.mark.ranks
@pytest.mark.parametrize("strategy", [name for name, one in SHARDED.items() if not one.skip_reason])
def test_a_plan_of_the_users_model_says_what_a_cast_takes(
    strategy: str,
    planned_checkpoint: Callable[[Specification], Checkpoint],
    real_checkpoint: Callable[[Specification], Checkpoint],
) -> None:
    """All peaks are as the bounds of casts have them, to the byte on the device; ranks do not divide the vocabulary."""
    case = ShardedCase(
        *(strategy, "decoder", "sim", "float32"),
        planned=True,
        user_model=DECODER,
        cast="bfloat16",
        group=RankGroup(3, (0,), 8),
    )
    checkpoint, rehearsal = planned_checkpoint(case.specification), real_checkpoint(case.rehearsal)
    load, record = MeteredRanks(case, RankRendezvous(case.group), checkpoint, rehearsal), blank_record(case)
    found = findings(load, record, load.measure(), lambda _: {}, explain=False)
    assert (found.problems, found.grown) == ([], [])
    assert (record.cast, record.blocks) == ("bfloat16", "Block x 3")
    assert record.share_bytes == case.shares[0].held_bytes < case.state_bytes


def test_ranks_that_cannot_share_the_users_model_refuse_it_in_a_line() -> None:
    case = ShardedCase(
        *("streamed", "decoder", "sim", "float32"),
        user_model=DECODER,
        division=Division("tensor", tp_plan=Reference("bench.selftest.decoder:PLAN")),
        group=local_group(3),
    )
    assert skip_reason(case) == (
        "refused: tensor: 3 ranks cannot divide the 16 rows of blocks.0.q_proj.weight evenly; give --ranks "
        "a divisor of that"
    )
    assert skip_reason(replace(case, group=local_group(2))) is None


def test_files_beside_the_users_are_left_out(tmp_path: Path) -> None:
    """A reader of a whole folder would take them for parts of the checkpoint: it gets a copy."""
    source = Source(tmp_path / "model.safetensors", "safetensors")
    source.path.write_bytes(b"")
    user_model = replace(DECODER, source=source, cast="")
    case = ShardedCase("dcp_safetensors", "decoder", "cpu", "float32", user_model=user_model)
    assert case.specification.in_place == source
    (tmp_path / "consolidated.safetensors").write_bytes(b"")
    assert case.specification.in_place is None
    assert replace(case, strategy_name="streamed").specification.in_place == source


def test_what_is_not_planned_is_measured_in_every_rank_here() -> None:
    case = ShardedCase("streamed", "tiny", "cpu", "float32", group=RankGroup(8, (5,), 4, 1, ("localhost", 29500)))
    assert case.measured_ranks == (5,)
    assert case.representatives(range(8)) == list(range(8))


@pytest.fixture
def shortage_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str | None]:
    """Returns the shortage of a load by two ranks here, with so much free memory."""

    def message(
        strategy: str, size: str, device: str, *, host: int = 2**50, on_devices: tuple[int, int] = (2**50, 2**50)
    ) -> str | None:
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=host))
        monkeypatch.setattr(CudaMeter, "free_bytes", lambda meter: on_devices[meter.device.index])
        return shortage(ShardedCase(strategy, size, device, "float32", group=local_group(2)))

    return message


def test_all_ranks_of_a_machine_share_its_memory(shortage_of: Callable[..., str | None]) -> None:
    # Twice the model in each.
    enough = 2 * 2 * 6_753_416_192
    assert shortage_of("load_then_shard", "xl", "cpu", host=enough) is None
    message = shortage_of("load_then_shard", "xl", "cpu", host=enough - 1)
    assert message == "takes 27.0 GB of host memory in all ranks, 27.0 GB are free"


def test_every_rank_has_the_memory_of_its_own_device(shortage_of: Callable[..., str | None]) -> None:
    # Masks are whole in both ranks, and rank 0 has one row of the embedding and the head more.
    masks, row = 12 * 4 * 1024**2, 4 * 768
    first, second = (masks + (702_480_384 - masks + sign * 2 * row) // 2 for sign in (1, -1))
    assert shortage_of("streamed", "small", "cuda", on_devices=(first, second)) is None
    for free in ((first - 1, second), (first, second - 1)):
        message = shortage_of("streamed", "small", "cuda", on_devices=free)
        assert message == "takes 0.4 GB of device memory, 0.4 GB are free"


def test_a_plan_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=0))
    assert shortage(planned(1024)) is None


def test_a_record_begins_with_how_many_divide_it_how() -> None:
    record = blank_record(planned(64))
    assert (record.ranks, record.parallelism, record.limit, record.blocks) == (64, "fsdp", None, None)
    # Both masks whole, 786 rows of 64 numbers of the embedding and of the head, and a 64th of the rest.
    masks, row = 2 * 4 * 1024**2, 64 * 4
    share = masks + 2 * 786 * row + (34_782_720 - masks - 2 * 50257 * row) // 64
    assert record.share_bytes == share
    # The last rank has 47 rows less, and may have a copy of either in the size of the others.
    assert record.device_bound_ratio == (share - 2 * 47 * row + 2 * 786 * row) / 34_782_720


@pytest.mark.parametrize(
    ("layout", "strategy", "known"),
    [
        ("safetensors", "dcp_safetensors", True),
        ("safetensors_sharded", "dcp_safetensors", False),
        ("safetensors_sharded", "mmap_shards", True),
    ],
)
def test_what_is_mapped_in_turn_is_not_what_was_read(
    layout: str, strategy: str, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peak of mapped pages is that of one file."""
    case = ShardedCase(strategy, "tiny", "cpu", "float32", asked_layout=layout, group=local_group(2))
    names = dict.fromkeys((*OF_A_RANK, *HIGHEST)) | {"timeline": None}
    of_a_rank = names | {"read_bytes": 5, "host_file_peak_bytes": 7, "host_private_peak_bytes": 0}
    monkeypatch.setattr("bench.sharded.rank_peaks.peaks", lambda *_: of_a_rank)
    found = of_all_ranks(case, dict.fromkeys(range(2)))  # type: ignore[arg-type]
    assert found["read_bytes"] == (24 if known else None)
