import pytest

pytest.importorskip("altair", reason="pages want the extra: pip install '.[report]'")

from bench.record.record import Record
from bench.record.row_key import RowKey
from bench.report.page.charts.timelines import timelines
from bench.report.rows import CaseResult, Problem, Status
from bench.selftest.recorded_run import LOADS, S, metered, series
from bench.selftest.sharded_run import of_ranks


def result(strategy: str, problem: Problem | None = None, **record: object) -> CaseResult:
    return CaseResult(RowKey(strategy, "small"), Record.read(metered(strategy) | record), problem)


def test_all_charts_of_a_size_have_the_same_axes() -> None:
    figures = timelines([result(strategy) for strategy in LOADS])
    ends = [figure.spec["datasets"]["ends"] for figure in figures]
    assert ends == [[{"seconds": 0, "ratio": 0}, {"seconds": 3.0, "ratio": pytest.approx(3.0)}]] * len(LOADS)


def test_a_chart_has_every_point_and_marks_the_peak() -> None:
    [figure] = timelines([result("baseline")])
    values = figure.spec["datasets"]
    assert [v["bytes"] for v in values["points"] if v["memory"] == "device"] == [0, S, 2 * S, S]
    assert [(v["memory"], v["bytes"]) for v in values["peaks"]] == [("device", 2 * S), ("private", S)]
    assert values["peaks"][0]["text"] == ("baseline-small: device memory peaks at 2,000,000,000 bytes after 2.1000 s")
    assert [v["text"] for v in values["moments"]] == ["build", "load", "copy"]


def test_what_is_held_is_held_until_the_next_point() -> None:
    """Points where nothing changed are not recorded: a line between two of them would be a ramp that never was."""
    [figure] = timelines([result("baseline")])
    lines = [layer["mark"] for layer in figure.spec["layer"] if layer["mark"]["type"] == "line"]
    assert [line["interpolate"] for line in lines] == ["step-after"]


def test_bounds_that_are_equal_share_a_line() -> None:
    [figure] = timelines([result("baseline", host_bound_ratio=2.0)])
    assert figure.spec["datasets"]["bounds"] == [
        {"ratio": 2.0, "memory": "device", "text": "device and private bound 2.00x"}
    ]


def test_bounds_without_room_for_two_texts_share_one() -> None:
    [figure] = timelines([result("baseline", host_bound_ratio=1.9)])
    assert [(line["ratio"], line["text"]) for line in figure.spec["datasets"]["bounds"]] == [
        (2.0, "device bound 2.00x, private bound 1.90x"),
        (1.9, ""),
    ]
    [figure] = timelines([result("baseline", host_bound_ratio=1.7)])
    assert [line["text"] for line in figure.spec["datasets"]["bounds"]] == ["device bound 2.00x", "private bound 1.70x"]


def test_of_many_ranks_only_what_was_measured_is_drawn_over_time() -> None:
    loads = [
        CaseResult(RowKey("streamed", "small", "fsdp", 2), Record.read(of_ranks("streamed", "fsdp", 2, planned=it)))
        for it in (0, 1)
    ]
    assert [figure.title for figure in timelines(loads)] == ["streamed fsdp x2-small"]
    assert timelines([result("baseline", planned=True)])


def test_memory_of_which_there_was_next_to_none_has_no_line() -> None:
    timeline = metered("baseline")["timeline"] | {"host_file_bytes": series((0.0, 0), (1.0, S // 200), (2.0, 0))}
    [figure] = timelines([result("baseline", timeline=timeline)])
    assert {value["memory"] for value in figure.spec["datasets"]["points"]} == {"device", "private"}


def test_a_load_that_failed_says_so_and_one_without_a_timeline_has_no_chart() -> None:
    figures = timelines([result("baseline", Problem(Status.FAILED, "too much")), result("streamed", timeline=None)])
    assert [figure.title for figure in figures] == ["baseline-small: FAILED"]
    assert timelines([result("streamed", timeline=None)]) == []
