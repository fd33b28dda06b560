from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bench.measure.case import Case
from bench.measure.planning import plan as plan_anew
from bench.meters.budget import Budget
from bench.meters.measure import Measurement
from bench.meters.process import LoadDied
from bench.record.record import Record
from bench.record.row_key import RowKey
from bench.report import advice as advice_module
from bench.report.advice import Advice, advised
from bench.report.rows import Problem, Row, Status
from bench.strategies import STRATEGIES
from model.user.from_options import user_model

GIB, MIB = 2**30, 2**20

plan = cache(plan_anew)


def row(strategy: str, *, fits: bool | None = True, problem: Problem | None = None, **record: Any) -> Row:
    known = {
        "strategy": strategy,
        "state_bytes": GIB,
        "device_budget_bytes": 2 * GIB,
        "device": "cuda",
        "device_reserved_peak_bytes": GIB,
        "device_peak_ratio": 1.0,
        "host_private_peak_bytes": 0,
        "host_peak_ratio": 0.0,
        "fits": fits,
        "ownership": "owned",
    }
    timed = Record(device=record.pop("timed_on", "cuda"))
    size = record.pop("size", "small")
    return Row(RowKey(strategy, size), Record.read(known | record), (problem,) if problem else (), timed)


def never(_: Case) -> Measurement:
    raise AssertionError("nothing has to be planned")


def would(
    table: Sequence[Row], cases: list[Case], budget: Budget, planned: Callable[[Case], Measurement] = plan
) -> Advice:
    advice = advised(table, cases, planned, budget)
    assert advice
    return advice


def said(*table: Row) -> Advice:
    return would(table, [], Budget(2 * GIB), never)


def test_where_nothing_was_tried_nothing_is_said() -> None:
    assert advised([row("baseline", fits=None)], [], never, Budget(2 * GIB)) is None
    assert advised([], [], never, Budget()) is None


def test_the_fastest_of_those_that_fit_is_to_be_used() -> None:
    advice = said(
        row("baseline", fits=False, first_logits_seconds=0.1),
        row("load_assign", first_logits_seconds=1.0),
        row("streamed", first_logits_seconds=0.4, device_reserved_peak_bytes=3 * GIB // 2, device_peak_ratio=1.5),
    )
    assert advice.strategy == "streamed"
    assert advice.lines == (
        "Use streamed for small: it fits, taking 1.5 GiB of 2 GiB of the device; first logits come after 0.40 s, 2.5 "
        "times as fast as with load_assign, the next.",
        "baseline does not fit.",
    )


def test_of_those_that_are_as_fast_the_one_that_takes_less() -> None:
    advice = said(
        row("streamed", first_logits_seconds=0.40, host_peak_ratio=0.1),
        row("load_assign", first_logits_seconds=0.43),
        row("baseline", fits=False),
        row("sequential", fits=False),
    )
    assert advice.strategy == "load_assign"
    assert "first logits come after 0.43 s, as soon as with streamed, which takes more." in advice.lines[0]
    assert advice.lines[1] == "baseline, sequential do not fit."


@pytest.mark.parametrize("times", [{}, {"timed_on": "cpu", "first_logits_seconds": 0.5}])
def test_without_times_of_the_device_the_one_that_takes_least(times: dict[str, Any]) -> None:
    """Simulated loads are timed on the CPU, where a mapped model copies nothing: that is no reason for a GPU."""
    quick = times and times | {"first_logits_seconds": 0.1}
    advice = said(
        row("load_assign", host_peak_ratio=0.2, **quick),
        row("sequential", device_peak_ratio=1.2, device_reserved_peak_bytes=GIB * 6 // 5, **quick),
        row("streamed", **times),
    )
    assert advice.lines == (
        "Use streamed for small: it fits, taking 1 GiB of 2 GiB of the device, and takes least of the 3 that do.",
    )


def test_of_those_that_are_equal_the_one_that_takes_least_by_theory_whatever_noise_says() -> None:
    bounds: dict[str, Any] = {"device_bound_ratio": 1.0}
    for noise in (0.0, 0.04):
        equal = (
            row("load_assign", host_bound_ratio=0.04, host_peak_ratio=noise, **bounds),
            row("mmap_assign", host_bound_ratio=0.0, host_peak_ratio=0.04 - noise, **bounds),
        )
        advice = said(*equal, row("baseline", device_peak_ratio=2.0))
        assert advice.lines[0].endswith(", and takes least of the 3 that do, as load_assign does.")
        assert advice.strategy == "mmap_assign"


def test_what_was_not_timed_for_want_of_memory_may_be_used() -> None:
    advice = said(row("streamed", problem=Problem(Status.SKIPPED, "takes 13.5 GB of host memory")))
    assert advice.strategy == "streamed"
    assert "failed" not in " ".join(advice.lines)


def test_what_fits_and_fails_otherwise_is_not_to_be_used() -> None:
    advice = said(
        row("streamed", problem=Problem(Status.FAILED, "a weight is wrong"), first_logits_seconds=0.1),
        row("load_assign"),
    )
    assert advice.strategy == "load_assign"
    assert advice.lines[-1] == "streamed failed otherwise."


def test_of_a_mapped_model_the_file_has_to_stay() -> None:
    advice = said(row("mmap_assign", ownership="mapped", host_budget_bytes=GIB, device_budget_bytes=None))
    assert "0 MiB of the host's 1 GiB beside an empty process" in advice.lines[0]
    assert "the file, which has to stay as it is" in advice.lines[1]


def test_the_largest_model_counts() -> None:
    advice = said(row("streamed", size="small"), row("load_assign", size="large", state_bytes=3 * GIB))
    assert advice.strategy == "load_assign"
    assert "for large" in advice.lines[0]


def test_its_code_is_there_to_be_pasted(tmp_path: Any) -> None:
    advice = said(row("streamed"))
    code = advice.code()
    assert code
    compile(code, "load_streamed.py", "exec")
    assert advice.how_to_use(tmp_path / "load_streamed.py") == [
        f"Its code, torch and the standard library only: {tmp_path}/load_streamed.py, {len(code.splitlines())} lines",
        "    from load_streamed import streamed",
        '    model = streamed(build, "checkpoint.pt", torch.device("cuda"))  # build() makes your model',
    ]
    assert "written when the run is recorded" in advice.how_to_use(None)[0]
    assert said(row("mine")).how_to_use(None) == []
    *_, used = said(row("streamed", cast="bfloat16")).how_to_use(None)
    assert 'torch.device("cuda"), dtype=torch.bfloat16)' in used


def test_where_none_fits_what_would_is_planned() -> None:
    """The segments of small take 698 MiB: half of that, cast to bfloat16, and two devices, would do."""
    cases = [Case(name, "small", "sim", "float32") for name in ("baseline", "load_assign")]
    table = [row(case.strategy_name, fits=False) for case in cases]
    advice = would(table, cases, Budget(600 * MIB))
    assert (advice.strategy, advice.code(), advice.how_to_use(None)) == (None, None, [])
    assert advice.lines == (
        "No strategy can load small with this memory: its weights take 669.9 MiB of the device, which has 600 MiB. "
        "What would, by plan:",
        "  --cast bfloat16: mmap_assign takes 350 MiB of the device and 73.6 MiB of the host, which fits",
        "  sharding: 2 devices with about 349 MiB each, of 698 MiB",
        "  offloading: weights on the host, a block at a time on the device: 147.2 MiB for tok_emb, which fits",
    )


def test_strategies_that_were_not_tried_are_named_only_where_their_bounds_let_them_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ["baseline", "sequential", "meta_sequential", "load_assign", "mmap_assign", "per_tensor", "streamed"]
    monkeypatch.setattr(advice_module, "STRATEGIES", {name: STRATEGIES[name] for name in names})
    case = Case("baseline", "small", "sim", "float32")
    table = [row("baseline", fits=False)]
    for budget, untried in (
        (Budget(800 * MIB), "load_assign, mmap_assign, per_tensor, streamed"),
        (Budget(900 * MIB), "sequential, load_assign, mmap_assign, per_tensor, streamed"),
        (Budget(800 * MIB, 100 * MIB), "mmap_assign, streamed"),
        (Budget(None, 100 * MIB), "mmap_assign, streamed"),
    ):
        lines = would(table, [case], budget).lines
        assert lines[0] == "No strategy loads small with this memory. What would, by plan:"
        assert lines[1] == f"  another strategy, maybe: {untried} were not tried"
        beside = " beside an empty process" if budget.host_bytes else ""
        # 0.7 GB of weights, twice, in segments.
        assert lines[2] == f"  more memory: baseline takes 1.4 GiB of the device and 669.9 MiB of the host{beside}"
        assert not [line for line in lines if "sharding" in line or "offloading" in line]


@pytest.mark.parametrize(("room", "fits"), [(73, "does not fit"), (74, "fits")])
def test_the_process_of_a_load_is_part_of_the_hosts_memory(
    room: int, fits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In half as many bytes the largest tensor of the model, which is cast there, is 73.6 MiB."""
    monkeypatch.setattr("bench.report.advice.empty_process_bytes", lambda *_: 215 * MIB)
    case = Case("baseline", "small", "sim", "float32")
    lines = would([row("baseline", fits=False)], [case], Budget(host_bytes=(room + 215) * MIB)).lines
    assert lines[-1].startswith("  --cast bfloat16: mmap_assign takes ")
    assert lines[-1].endswith(f", which {fits}"), lines


def test_a_model_that_is_larger_than_the_device_needs_no_trial() -> None:
    """Limits may be impossible to set, or a limit of the machine may be all that was measured."""
    case = Case("baseline", "small", "sim", "float32")
    untried = row("baseline", fits=None, problem=Problem(Status.SKIPPED, "no memory cgroup can be made here"))
    lines = would([untried], [case], Budget(600 * MIB)).lines
    assert lines[0].startswith("No strategy can load small with this memory")
    assert advised([untried], [case], plan, Budget(2 * GIB)) is None
    limit = Row(RowKey("memory", "small", roofline=True), Record(state_bytes=GIB, limit="memory"))
    many = Row(RowKey("streamed", "small", "fsdp", 8), Record(state_bytes=GIB, strategy="streamed"))
    assert advised([limit, many], [case], plan, Budget(600 * MIB)) is None


def test_what_would_not_fit_either_is_said() -> None:
    case = Case("load_assign", "small", "sim", "float32")
    lines = would([row("load_assign", fits=False)], [case], Budget(100 * MIB)).lines
    assert "which does not fit" in lines[1]
    assert lines[2] == "  sharding: 7 devices with about 147.2 MiB each, of 698 MiB, which does not fit"
    assert lines[3].endswith("147.2 MiB for tok_emb, which does not fit")


def test_what_cannot_be_planned_is_said_and_what_needs_no_plan_too() -> None:
    def dies(_: Case) -> Measurement:
        raise LoadDied("gone")

    case = Case("load_assign", "small", "sim", "float32")
    lines = would([row("load_assign", fits=False)], [case], Budget(600 * MIB), dies).lines
    assert lines[1] == "  load_assign cannot be planned: gone"
    assert [line.partition(":")[0] for line in lines[2:]] == ["  sharding", "  offloading"]


def test_loaders_of_other_projects_are_not_planned() -> None:
    """A loader without bounds would pass for the one that takes least."""
    cases = [Case(name, "small", "sim", "float32") for name in ("dcp", "load_assign")]
    table = [row(case.strategy_name, fits=False) for case in cases]
    for tried in (1, 2):
        lines = would(table[:tried], cases[:tried], Budget(600 * MIB)).lines
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
    lines = would(table, cases, Budget(24 * MIB)).lines
    assert lines[0].startswith("No strategy can load wrapped with this memory: its weights take 40 MiB of the device")
    assert lines[1].startswith("  --cast bfloat16: sequential takes ")
    assert lines[2:] == (
        "  sharding: 2 devices with about 20 MiB each, of 40 MiB",
        "  offloading: weights on the host, a block at a time on the device: 8 MiB for body.head, which fits",
    )


def test_what_was_refused_is_not_called_untried(tmp_path: Path) -> None:
    """With memory for the weights, 40 MiB, but not for `sequential`, which takes 8 MiB more."""
    cases, table = wrapped_model(tmp_path, ("sequential", "streamed"))
    lines = would(table, cases, Budget(45 * MIB)).lines
    assert lines[0] == "No strategy loads wrapped with this memory. What would, by plan:"
    # With the segments that its allocator takes for 48 MiB.
    assert lines[1] == "  more memory: sequential takes 62 MiB of the device and 40 MiB of the host"
    assert [line.partition(":")[0] for line in lines[2:]] == ["  --cast bfloat16"]
