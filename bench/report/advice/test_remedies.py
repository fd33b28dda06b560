"""The remedies in the advice, if no load fits a budget."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.measure.case import Case
from bench.meters.budget import Budget
from bench.meters.measure import Measurement
from bench.meters.process import LoadDied
from bench.record.record import Record
from bench.record.row_key import RowKey
from bench.report.advice import remedies
from bench.report.advice.advice import advised
from bench.report.advice.table_rows import GIB, MIB, plan, rank_row, row, would
from bench.report.rows import Problem, Row, Status
from bench.sharded.rank_group import RankGroup
from bench.sharded.sharded_case import ShardedCase
from bench.strategies import STRATEGIES
from model.user.from_options import user_model


def test_where_none_fits_what_would_is_planned() -> None:
    """The segments of small take 698 MiB: half of that, cast to bfloat16, and two devices, would do."""
    cases = [Case(name, "small", "sim", "float32") for name in ("baseline", "load_assign")]
    table = [row(case.strategy_name, fits=False) for case in cases]
    advice = would(table, cases, Budget(600 * MIB))
    assert (advice.strategy, advice.code()) == (None, None)
    # A model of the user's is tested on the CPU before, where a device has no memory of its own.
    on_cpu = [replace(case, device="cpu") for case in cases]
    on_sim = [replace(one, record=one.record.with_fields({"device": "sim"})) for one in table]
    assert (
        would(on_sim, [*on_cpu, *cases], Budget(600 * MIB)).lines() == would(on_sim, cases, Budget(600 * MIB)).lines()
    )
    # Of 669.9 MiB 48 MiB are masks. Of the rest, the matrices of the blocks and the head are 4 bytes a number.
    assert advice.lines() == [
        "No strategy can load small with this memory: its weights take 669.9 MiB of the device, which has 600 MiB. "
        "What would, by plan:",
        "  --cast bfloat16: mmap_assign takes 350 MiB of the device and 73.6 MiB of the host, which fits",
        "  quantising: int8 316.5 MiB, which fits; 4 bit 257.6 MiB, which fits (bytes only: no strategy here loads it)",
        "  more devices: each of 2 takes 359 MiB, which fits",
        "  offloading: weights on the host, a block at a time on the device: 147.2 MiB for tok_emb, which fits",
        "Check it:",
        "    pytest bench --sizes small --cast bfloat16 --strategies mmap_assign",
    ]


def test_strategies_that_were_not_tried_are_named_only_where_their_bounds_let_them_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ["baseline", "sequential", "meta_sequential", "load_assign", "mmap_assign", "per_tensor", "streamed"]
    monkeypatch.setattr(remedies, "STRATEGIES", {name: STRATEGIES[name] for name in names})
    case = Case("baseline", "small", "sim", "float32")
    table = [row("baseline", fits=False)]
    for budget, untried in (
        (Budget(800 * MIB), "load_assign, mmap_assign, per_tensor, streamed"),
        (Budget(900 * MIB), "sequential, load_assign, mmap_assign, per_tensor, streamed"),
        (Budget(800 * MIB, 100 * MIB), "mmap_assign, streamed"),
        (Budget(None, 100 * MIB), "mmap_assign, streamed"),
    ):
        lines = would(table, [case], budget).lines()
        assert lines[0] == "No strategy loads small with this memory. What would, by plan:"
        assert lines[1] == f"  another strategy, maybe: {untried} were not tried"
        beside = " beside an empty process" if budget.host_bytes else ""
        # 0.7 GB of weights, twice, in segments.
        assert lines[2] == f"  more memory: baseline takes 1.4 GiB of the device and 669.9 MiB of the host{beside}"
        assert not [line for line in lines if "more devices" in line or "offloading" in line]


@pytest.mark.parametrize(("room", "fits"), [(73, "does not fit"), (74, "fits")])
def test_the_process_of_a_load_is_part_of_the_hosts_memory(
    room: int, fits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In half as many bytes the largest tensor of the model, which is cast there, is 73.6 MiB."""
    monkeypatch.setattr("bench.report.advice.remedies.empty_process_bytes", lambda *_: 215 * MIB)
    case = Case("baseline", "small", "sim", "float32")
    advice = would([row("baseline", fits=False)], [case], Budget(host_bytes=(room + 215) * MIB))
    assert advice.remedies[-1] == (
        f"--cast bfloat16: mmap_assign takes 350 MiB of the device and 73.6 MiB of the host beside an empty process, "
        f"which {fits}"
    )
    assert bool(advice.command) == (fits == "fits")


def test_a_model_that_is_larger_than_the_device_needs_no_trial() -> None:
    """Limits may be impossible to set, or a limit of the machine may be all that was measured."""
    case = Case("baseline", "small", "sim", "float32")
    untried = row("baseline", fits=None, problem=Problem(Status.SKIPPED, "no memory cgroup can be made here"))
    lines = would([untried], [case], Budget(600 * MIB)).lines()
    assert lines[0].startswith("No strategy can load small with this memory")
    assert advised([untried], [case], plan, Budget(2 * GIB)) is None
    limit = Row(RowKey("memory", "small", roofline=True), Record(state_bytes=GIB, limit="memory"))
    many = Row(RowKey("streamed", "small", "fsdp", 8), Record(state_bytes=GIB, strategy="streamed"))
    assert advised([limit, many], [case], plan, Budget(600 * MIB)) is None


def test_what_would_not_fit_either_is_said() -> None:
    case = Case("load_assign", "small", "sim", "float32")
    advice = would([row("load_assign", fits=False)], [case], Budget(40 * MIB))
    assert advice.remedies == (
        "--cast bfloat16: mmap_assign takes 350 MiB of the device and 73.6 MiB of the host, which does not fit",
        "quantising: int8 316.5 MiB, which does not fit; 4 bit 257.6 MiB, which does not fit (bytes only: no strategy "
        "here loads it)",
        "more devices: each takes 62 MiB or more, whatever their number, which does not fit",
        "offloading: weights on the host, a block at a time on the device: 147.2 MiB for tok_emb, which does not fit",
    )
    assert advice.command == ""


def test_what_cannot_be_planned_is_said_and_what_needs_no_plan_too() -> None:
    def dies(_: Case) -> Measurement:
        raise LoadDied("gone")

    case = Case("load_assign", "small", "sim", "float32")
    lines = would([row("load_assign", fits=False)], [case], Budget(600 * MIB), dies).lines()
    assert lines[1] == "  load_assign cannot be planned: gone"
    assert [line.partition(":")[0] for line in lines[2:5]] == ["  quantising", "  more devices", "  offloading"]


def test_loaders_of_other_projects_are_not_planned() -> None:
    """A loader without bounds would pass for the one that takes least."""
    cases = [Case(name, "small", "sim", "float32") for name in ("dcp", "load_assign")]
    table = [row(case.strategy_name, fits=False) for case in cases]
    for tried in (1, 2):
        lines = would(table[:tried], cases[:tried], Budget(600 * MIB)).lines()
        assert [line for line in lines if line.startswith("  --cast bfloat16: mmap_assign takes 350 MiB")]


ROTARY = """
import torch
from torch import nn

class Rotary(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(1024, 1024, bias=False) for _ in range(8))
        # From a weight, which a skeleton has not.
        self.register_buffer("angles", self.layers[0].weight.detach()[0, :64].clone(), persistent=False)

class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Module()
        self.body.model = Rotary()
        self.body.head = nn.Linear(2048, 1024, bias=False)

def wrapped():
    return Wrapped()
"""


def wrapped_model(folder: Path, strategies: tuple[str, ...]) -> tuple[list[Case], list[Row]]:
    """The cases of a model, and what became of them: `sequential` was tried, all others refused it."""
    (folder / "mine.py").write_text(ROTARY)
    model = user_model(f"{folder / 'mine.py'}:wrapped", None, None, None)
    cases = [Case(name, "wrapped", "sim", "float32", planned=True, user_model=model) for name in strategies]
    known: dict[str, Any] = {"size": "wrapped", "state_bytes": 40 * MIB}
    tried = row("sequential", fits=False, **known)
    refused = Problem(Status.REFUSED, "['body.model.angles'] are in no checkpoint")
    return cases, [
        tried if name == "sequential" else row(name, fits=None, problem=refused, **known) for name in strategies
    ]


@pytest.mark.parametrize("strategies", [("sequential", "streamed", "mmap_assign"), ("streamed", "mmap_assign")])
def test_a_model_that_recipes_refuse_gets_the_same_advice(tmp_path: Path, strategies: tuple[str, ...]) -> None:
    """Its weights are 40 MiB. Whatever was tried, and refused, a device with 24 MiB cannot hold them, two can."""
    cases, table = wrapped_model(tmp_path, strategies)
    lines = would(table, cases, Budget(24 * MIB)).lines()
    assert lines[0].startswith("No strategy can load wrapped with this memory: its weights take 40 MiB of the device")
    assert lines[1].startswith("  --cast bfloat16: sequential takes ")
    # The buffer of 64 numbers, which no checkpoint holds, is on each device.
    assert lines[2:5] == [
        "  quantising: int8 10 MiB, which fits; 4 bit 5 MiB, which fits (bytes only: no strategy here loads it)",
        "  more devices: each of 2 takes 20 MiB, which fits",
        "  offloading: weights on the host, a block at a time on the device: 8 MiB for body.head, which fits",
    ]


def test_what_was_refused_is_not_called_untried(tmp_path: Path) -> None:
    """With memory for the weights, 40 MiB, but not for `sequential`, which takes 8 MiB more."""
    cases, table = wrapped_model(tmp_path, ("sequential", "streamed"))
    lines = would(table, cases, Budget(45 * MIB)).lines()
    assert lines[0] == "No strategy loads wrapped with this memory. What would, by plan:"
    # With the segments that its allocator takes for 48 MiB.
    assert lines[1] == "  more memory: sequential takes 62 MiB of the device and 40 MiB of the host"
    assert [line.partition(":")[0] for line in lines[2:-1]] == ["  --cast bfloat16", "Check it"]


def ranks_of(count: int) -> ShardedCase:
    return ShardedCase("streamed", "small", "sim", "float32", planned=True, group=RankGroup(count, (0,), min(count, 8)))


def test_of_ranks_what_would_fit_is_said_by_theory() -> None:
    """Of small 48 MiB are masks, which each rank holds: 621.9 MiB are divided."""
    budgets: dict[str, Any] = {"device_budget_bytes": 100 * MIB, "host_budget_bytes": None}
    table = [rank_row("streamed", count, fits=False, share_bytes=400 * MIB, **budgets) for count in (2, 4)]
    advice = would(table, [ranks_of(2), ranks_of(4)], Budget(100 * MIB))
    assert advice.paragraph == "No strategy loads small on 2 or 4 devices with this memory. What would, by theory:"
    assert advice.remedies == (
        "more memory: streamed fsdp x4 takes 400 MiB of each device and 0 MiB of a node beside its 4 empty processes",
        "--cast bfloat16: each of 4 takes 101.7 MiB, which does not fit",
        "quantising on each device: int8 115.1 MiB, which does not fit; 4 bit 100.4 MiB, which does not fit (bytes "
        "only: no strategy here loads it)",
        "more devices: each of 32 takes 67.4 MiB, which fits",
        "offloading: weights on the host, a block at a time on the device: 147.2 MiB for tok_emb, which does not fit",
    )
    assert advice.command == "pytest bench --sharded --plan --ranks 32 --parallelism fsdp --sizes small"


def test_more_ranks_are_more_than_were_tried() -> None:
    """By theory 359 MiB of two ranks fit, and the plan of a load has shown that they do not."""
    table = [rank_row("streamed", 2, fits=False, share_bytes=400 * MIB, device_budget_bytes=380 * MIB)]
    advice = would(table, [ranks_of(2)], Budget(380 * MIB))
    assert "more devices: each of 4 takes 203.5 MiB, which fits" in advice.remedies


def test_where_only_the_host_is_too_small_more_devices_do_not_help() -> None:
    known: dict[str, Any] = {"share_bytes": GIB, "node_private_peak_bytes": 70 * GIB}
    advice = would([rank_row("streamed", 8, fits=False, **known)], [ranks_of(8)], Budget(2 * GIB, 64 * GIB))
    assert advice.remedies == (
        "more memory: streamed fsdp x8 takes 1 GiB of each device and 70 GiB of a node beside its 8 empty processes",
    )
    assert advice.command == ""
