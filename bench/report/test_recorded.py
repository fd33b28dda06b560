import json
from pathlib import Path
from typing import Any

import pytest

from bench.record.record_file import Unreadable
from bench.report.recorded import Recorded, recorded
from bench.report.rows import Problem, Status
from bench.report.run_verdict import verdict
from bench.selftest import sharded_run
from bench.selftest.recorded_run import CELLS, CHANGE, HOSTILE, LOADS, Runs, content, metered


def test_a_run_is_read_back_with_what_failed_in_it(last: Recorded) -> None:
    assert [row.name for row in last.rows] == list(LOADS)
    assert [row.problems for row in last.rows if row.problems] == [
        (Problem(Status.FAILED, "<b>too much</b>: 1.30x > 1.20x"),)
    ]
    assert [outcome.key.name for outcome in last.metered("small")] == list(LOADS)
    assert last.metered("xl") == []


def problem(**more: Any) -> dict[str, Any]:
    """A run with one problem."""
    usual = {"strategy": "streamed", "size": "small", "verdict": "no", "record": {}}
    return content(1) | {"problems": [usual | more]}


def test_what_ended_before_anything_was_measured_is_shown(tmp_path: Path) -> None:
    (tmp_path / "0001_run.json").write_text(json.dumps(problem(strategy="new")))
    assert [row.problems for row in recorded(tmp_path / "0001_run.json").rows if row.name == "new"] == [
        (Problem(Status.FAILED, "no"),)
    ]


@pytest.mark.parametrize(
    ("damaged", "why"),
    [
        (b"{", "cannot be read"),
        (b"[]", "is no run of this suite"),
        (json.dumps(content(1) | {"conformance": [CELLS[0] | {"property": "gone"}]}).encode(), "no property 'gone'"),
        (json.dumps(content(1) | {"problems": [{}]}).encode(), "is no run of this suite"),
        (json.dumps(problem(verdict=None)).encode(), "problems.0..verdict is null, and not a text"),
        (json.dumps(content(1) | {"advice": [3]}).encode(), "advice.0. is 3, and not a text"),
        (
            json.dumps(problem(record=metered("streamed") | {"state_bytes": 0})).encode(),
            "problems.0..record.state_bytes is 0",
        ),
        (json.dumps(problem(record={"host_total_peak_bytes": 1})).encode(), "is no run of this suite"),
        (json.dumps(content(1) | {"history": {"schema": 1, "outcome": "passed"}}).encode(), "is no run of this suite"),
    ],
)
def test_what_is_no_run_is_refused_in_a_line(tmp_path: Path, damaged: bytes, why: str) -> None:
    (tmp_path / "0001_run.json").write_bytes(damaged)
    with pytest.raises(Unreadable, match=why) as caught:
        recorded(tmp_path / "0001_run.json")
    assert "\n" not in str(caught.value)


def test_a_load_that_only_grew_is_shown_once(tmp_path: Path) -> None:
    """Its figures are right, so they are among the benchmarks; that it failed is among the problems."""
    grown = {"strategy": "streamed", "size": "small", "verdict": "grew", "record": metered("streamed")}
    run, grew = recorded(Runs(tmp_path).write(1, problems=[grown])), Problem(Status.FAILED, "grew")
    assert [(one.key.name, one.problem) for one in run.metered("small")] == [
        ("baseline", None),
        ("streamed", grew),
        (HOSTILE, None),
    ]
    assert [row.problems for row in run.rows if row.name == "streamed"] == [(grew,)]


def history(outcome: str, **more: Any) -> dict[str, Any]:
    return {"schema": 1, "outcome": outcome, "failed": [], "changes": [], "accepted": False} | more


GONE = CHANGE | {"figure": None, "after": None}


def sentence(folder: Path, **more: Any) -> str:
    return verdict(recorded(Runs(folder).write(1, **more))).sentence


RIGHT = "3 strategies measured: every weight is right, and every peak is what theory says."


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "1 of 4 loads failed: per_tensor-small. 1 test failed: a::b."),
        ({"problems": [], "history": history("passed")}, RIGHT),
        ({"problems": [], "history": history("failed", failed=["a.py::b"])}, f"1 test failed: a.py::b. {RIGHT}"),
        ({"problems": [], "history": history("interrupted")}, f"Stopped before its end. {RIGHT}"),
        ({"problems": [], "history": history("failed")}, f"What failed it is not recorded. {RIGHT}"),
        ({"problems": [], "history": history("failed", complaints=["no run"])}, f"no run. {RIGHT}"),
        (
            {"history": history("failed", failed=["x.py::t[per_tensor-small-sim]"])},
            "1 of 4 loads failed: per_tensor-small.",
        ),
        (
            {"problems": [], "history": history("failed", changes=[CHANGE, GONE])},
            f"1 figure is worse and 1 benchmark gone than in the runs before. {RIGHT}",
        ),
        (
            {"problems": [], "history": history("passed", changes=[CHANGE], accepted=True)},
            f"1 figure is worse, and accepted. {RIGHT}",
        ),
    ],
)
def test_the_verdict_says_what_the_run_came_to(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    assert sentence(tmp_path, **more) == said


def test_where_nothing_has_values_no_weight_is_called_right(tmp_path: Path) -> None:
    metered_only = [one for one in content(1)["benchmarks"] if "peak_memory" in one["fullname"]]
    said = sentence(tmp_path, benchmarks=metered_only, problems=[], history=history("passed"))
    assert said == "3 strategies measured: every name, dtype and shape is right, and every peak is what theory says."


def test_what_was_skipped_has_neither_failed_nor_been_measured(tmp_path: Path) -> None:
    skipped = [{"strategy": "x", "size": "xl", "verdict": "skipped: too large", "record": metered("streamed")}]
    assert sentence(tmp_path, problems=skipped, history=history("passed")) == RIGHT


def test_what_was_refused_heads_the_verdict(tmp_path: Path) -> None:
    why = "refused: ['angles'] are not persistent; use baseline or sequential"
    refused: list[dict[str, Any]] = [
        {"strategy": name, "size": "small", "verdict": why, "record": {}} for name in ("x", "y", "x")
    ]
    whole = verdict(recorded(Runs(tmp_path).write(1, problems=refused, history=history("passed"))))
    assert whole.headline == f"3 of 5 strategies work with small: baseline, streamed, {HOSTILE}; 2 refused."
    assert whole.style == "partial"
    assert whole.sentence == RIGHT
    assert verdict(recorded(Runs(tmp_path).write(1, problems=[], history=history("passed")))).headline == "Passed."
    complaint = f"--require-all: {whole.headline.removesuffix('.')}"
    failed = history("failed", complaints=[complaint])
    required = verdict(recorded(Runs(tmp_path).write(1, problems=refused, history=failed)))
    assert (required.headline, required.style) == ("Failed.", "failed")
    assert required.sentence == f"{complaint}. {whole.sentence}"


def test_loads_by_many_processes_are_told_apart_by_how_they_divide_the_model(tmp_path: Path) -> None:
    run = recorded(Runs(tmp_path).write(1, benchmarks=sharded_run.benchmarks(), problems=[], history=history("passed")))
    assert [row.name for row in run.rows] == ["streamed fsdp x2", "streamed tensor x2"]
    assert [outcome.key.name for outcome in run.metered("small")] == ["streamed fsdp x2", "streamed tensor x2"]
    assert verdict(run).sentence == (
        "1 strategy for 2 ranks measured: every name, dtype and shape is right, and every peak is what theory says."
    )


def test_one_of_them_that_failed_is_one_failure(tmp_path: Path) -> None:
    record = sharded_run.of_ranks("streamed", "fsdp", 8)
    problem = {"strategy": "streamed fsdp x8", "size": "small", "verdict": "too much", "record": record}
    failed = history("failed", failed=["t.py::t[streamed-fsdp-small-x8-sim]"])
    said = sentence(tmp_path, benchmarks=sharded_run.benchmarks(), problems=[problem], history=failed)
    assert said == "1 of 3 loads failed: streamed fsdp x8-small."
