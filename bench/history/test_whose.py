"""Models, checkpoints and loaders of one name that are not the same: what is compared, and what is said of the rest."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.history.change_points import change_points
from bench.history.runs import Key, read_run, runs_with
from bench.record.record import Record
from bench.report.history_section import history_lines
from bench.selftest.small_suite import Suite, lines, load

RESULTS = Path(__file__).parents[2] / "results"

ONE = {"model": "one.py:net", "state_digest": "1", "layout": "torch"}
OTHER = ONE | {"model": "other.py:net", "state_digest": "2"}
# A layer more.
CHANGED = ONE | {"state_digest": "3"}
GREATER = {"state_bytes": 45 * 10**9, "device_requested_peak_bytes": 90 * 10**9}


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (ONE, OTHER, "nothing is recorded of other.py:net"),
        ({}, ONE, "nothing is recorded of one.py:net"),
        (ONE, {}, "nothing is recorded of GPT-2"),
        (ONE, CHANGED, "one.py:net was recorded with other names, dtypes, shapes or ties in its state dict"),
        (
            *(ONE | {"state_digest": None}, ONE),
            "what is recorded of one.py:net does not say which state dict it had: older versions wrote it",
        ),
        (
            *(ONE, ONE | {"layout": "safetensors"}),
            "recorded from a checkpoint in the layout torch, and not safetensors",
        ),
        ({"loader": "a.py:mine"}, {"loader": "b.py:mine"}, "nothing is recorded of b.py:mine"),
    ],
)
def test_what_is_another_model_checkpoint_or_loader_is_not_compared_and_that_is_a_line(
    suite: Suite, first: dict[str, Any], second: dict[str, Any], said: str
) -> None:
    suite({"one": load(**first), "two": load(**first)})
    compared = suite(dict.fromkeys(("one", "two"), load(**second, **GREATER)), "--benchmark-compare")
    assert compared.ret == pytest.ExitCode.OK
    assert lines(compared, "NOT COMPARED") == [f"NOT COMPARED: {said}"]
    assert not [line for line in compared.outlines if line.startswith(("NEW", "GREW", "VANISHED", "REGRESSION"))]
    assert any(" compared with nothing " in line for line in compared.outlines)


def test_another_model_is_compared_with_itself_alone(suite: Suite) -> None:
    suite({"one": load(**ONE)})
    assert suite({"one": load(**OTHER, **GREATER)}).ret == pytest.ExitCode.OK
    assert suite.history("0002_run")["changes"] == []
    named = suite({"one": load(**OTHER, **GREATER)}, "--benchmark-compare=0001")
    assert lines(named, "NOT COMPARED") == ["NOT COMPARED: nothing is recorded of other.py:net in 0001"]
    again = suite({"one": load(**ONE, **GREATER)}, "--benchmark-compare")
    assert len(lines(again, "GREW")) == len(GREATER)
    assert suite({"one": load(**OTHER, **GREATER)}, "--benchmark-compare").ret == pytest.ExitCode.OK


def test_a_comparison_that_is_required_fails_for_another_model(suite: Suite) -> None:
    suite({"one": load(**ONE)})
    assert suite({"one": load(**OTHER)}, "--require-comparison").ret == pytest.ExitCode.TESTS_FAILED


def test_what_is_accepted_or_worse_of_one_model_is_nothing_to_another(suite: Suite) -> None:
    grown = {"device_requested_peak_bytes": 2 * 10**9}
    suite({"one": load(**ONE)})
    suite({"one": load(**OTHER)})
    # Of one, and nobody accepts it.
    suite({"one": load(**ONE, **grown)})
    assert suite.history("0003_run")["changes"][0]["key"][4:6] == ["one.py:net", "1"]
    assert lines(suite({"one": load(**OTHER, **grown)}, "--benchmark-compare"), "GREW")
    # Of the other, and someone does.
    assert lines(suite({"one": load(**OTHER, **grown)}, "--accept-regressions"), "ACCEPTED: 1 figure")
    assert suite({"one": load(**OTHER, **grown)}, "--benchmark-compare").ret == pytest.ExitCode.OK
    assert suite({"one": load(**ONE, **grown)}, "--benchmark-compare").ret == pytest.ExitCode.TESTS_FAILED


def test_what_was_skipped_is_missed_once_however_many_layouts_are_recorded(suite: Suite) -> None:
    for layout in ("torch", "safetensors"):
        suite({"one": load(**ONE | {"layout": layout}), "two": load()})
    result = suite({"one": load(**ONE), "two": load()}, "--benchmark-compare", broken=["one"])
    assert lines(result, "NOT COMPARED: skipped") == ["NOT COMPARED: skipped or failed: test_load[one]"]
    whole = suite({"one": load(**ONE | {"layout": "torch"}), "two": load()}, "--benchmark-compare")
    assert not lines(whole, "NOT COMPARED")


def test_the_history_has_a_series_for_each_model_and_may_be_of_one_alone(suite: Suite) -> None:
    models = [ONE, OTHER, {}, CHANGED, ONE | {"layout": "safetensors"}]
    suite.record(15, lambda number: {"one": load(**models[number % 5], state_bytes=number % 5 or 5)})
    runs = [read_run(file) for file in suite.files]
    assert change_points(runs)[0] == []
    alone = runs_with(runs, lambda record: record.state_digest == "2")
    assert [run.number for run in alone] == ["0001", "0006", "0011"]
    assert history_lines(alone, [], 80, "other.py:net")[0].startswith("3 runs of other.py:net from ")
    assert history_lines([], [], 80, "x.py:net") == ["No run of x.py:net is recorded", "0 of 0 series moved"]
    suite.record(16, lambda number: {"one": load(**models[number % 5], state_bytes=(number % 5 or 5) + number // 16)})
    [row] = [line for line in history_lines([read_run(file) for file in suite.files], [], 200) if "+100.0 %" in line]
    assert "one of other.py:net" in row


def test_a_record_without_the_fields_is_of_the_same_gpt2() -> None:
    [first, *_] = sorted(RESULTS.glob("*/0001_*.json"))
    keys = {key.title: key for key in read_run(first).records if key.test == "test_load_time"}
    key = keys["per_tensor-small-cpu"]
    assert key == Key.of(key.fullname, Record.read(load(layout="per_tensor")))
    # As changes were written.
    assert key == Key(*key[:4])


def test_a_key_of_an_earlier_version_is_that_of_gpt2(suite: Suite) -> None:
    grown = {"one": load(device_requested_peak_bytes=2 * 10**9)}
    suite({"one": load()})
    suite(grown)
    [file] = [file for file in suite.files if file.stem == "0002_run"]
    run = json.loads(file.read_text())
    [change] = run["history"]["changes"]
    change["key"] = change["key"][:4]
    file.write_text(json.dumps(run))
    assert suite(grown, "--benchmark-compare").ret == pytest.ExitCode.TESTS_FAILED


def test_titles_name_what_is_the_users_where_several_models_may_be() -> None:
    def title(**fields: str) -> str:
        record = Record.read({"dtype": "float32", "cache": "warm"} | fields)
        return Key.of("t.py::t[mine-net-cpu]", record).whole_title

    assert title(layout="per_tensor") == "mine-net-cpu"
    assert title(**ONE) == "mine-net-cpu of one.py:net"
    assert title(**ONE | {"layout": "safetensors"}) == "mine-net-cpu of one.py:net in safetensors"
    assert title(layout="torch", loader="a.py:mine") == "mine-net-cpu by a.py:mine"
    assert title(cast="bfloat16") == "mine-net-cpu float32 cast to bfloat16"
    assert title(cast="float32", dtype="float16") == "mine-net-cpu float16 cast to float32"


def test_a_load_that_casts_is_compared_with_none_that_does_not(suite: Suite) -> None:
    suite({"one": load()})
    cast = {"one": load(cast="bfloat16", device_requested_peak_bytes=2 * 10**9)}
    run = suite(cast, "--benchmark-compare")
    assert run.ret == 0
    assert lines(run, "NEW: test_load[one float32 cast to bfloat16]")
    grown = {"one": load(cast="bfloat16", device_requested_peak_bytes=3 * 10**9)}
    assert suite(grown, "--benchmark-compare").ret == pytest.ExitCode.TESTS_FAILED
    assert suite(cast | {"one": load()}, "--benchmark-compare").ret == 0
