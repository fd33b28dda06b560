import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("altair", reason="pages want the extra: pip install '.[report]'")

from bench.record.record import Record
from bench.record.row_key import RowKey
from bench.report.budget_marks import TOO_BIG
from bench.report.page.charts.frontier import BEST, FAILED, OTHER, Point, frontier, frontier_figures
from bench.report.rows import Problem, Row, Status
from bench.selftest.sharded_run import of_ranks

figures = st.floats(0.01, 10).map(lambda value: round(value, 2))
points = st.lists(st.tuples(figures, figures), min_size=1, max_size=12).map(
    lambda pairs: [Point(seconds, ratio, f"s{number}") for number, (seconds, ratio) in enumerate(pairs)]
)


@given(points)
def test_no_strategy_beats_one_on_the_frontier_and_one_on_it_beats_each_other(drawn: list[Point]) -> None:
    best = frontier(drawn)
    assert best
    for point in drawn:
        beaten_by = [p for p in drawn if p.seconds <= point.seconds and p.ratio <= point.ratio and p[:2] != point[:2]]
        assert (point in best) == (not beaten_by)
        assert point in best or set(beaten_by) & set(best)


def row(strategy: str, size: str = "small", problem: Problem | None = None, **record: float) -> Row:
    return Row(RowKey(strategy, size), Record.read(record), (problem,) if problem else ())


def test_a_chart_has_what_was_measured_whole() -> None:
    table = [
        row("a", first_logits_seconds=1.0, host_peak_ratio=0.5, device_peak_ratio=1.0),
        row("b", first_logits_seconds=2.0, host_peak_ratio=0.25),
        row("c", problem=Problem(Status.REFUSED, "no"), first_logits_seconds=0.1, host_peak_ratio=0.0),
        row("d", host_peak_ratio=0.1),
        row("e", "xl", first_logits_seconds=0.1, host_peak_ratio=0.1),
    ]
    device, host = frontier_figures(table, "small")
    assert [p["strategy"] for p in device.spec["datasets"]["points"]] == ["a"]
    assert [p["strategy"] for p in host.spec["datasets"]["points"]] == ["a", "b"]
    assert [line[-1] for line in host.table[1:]] == [BEST, BEST]
    assert frontier_figures(table, "medium") == []


def test_what_failed_or_does_not_fit_is_shown_as_such_and_beats_nothing() -> None:
    table = [
        row("a", first_logits_seconds=1.0, host_peak_ratio=0.5),
        row("b", first_logits_seconds=2.0, host_peak_ratio=0.5),
        row("wrong", problem=Problem(Status.FAILED, "no"), first_logits_seconds=0.1, host_peak_ratio=0.0),
        row("large", fits=False, first_logits_seconds=0.1, host_peak_ratio=0.0),
    ]
    [host] = frontier_figures(table, "small")
    values = host.spec["datasets"]
    assert {p["strategy"]: p["kind"] for p in values["points"]} == {
        "a": BEST,
        "b": OTHER,
        "wrong": FAILED,
        "large": TOO_BIG,
    }
    names = {one["name"] for side in ("left", "right") for one in values[f"named_{side}"]}
    assert names == {"a", "b", "wrong (failed)", "large (too big)"}
    assert frontier_figures(table[2:], "small") == []


def test_of_many_ranks_those_are_in_a_chart_that_divide_the_model_alike_by_what_one_holds_of_it() -> None:
    table = [
        Row(
            RowKey("streamed", "small", way, ranks),
            Record.read(of_ranks("streamed", way, ranks, 1.5) | {"first_logits_seconds": 1.0}),
        )
        for way, ranks in (("fsdp", 2), ("tensor", 2), ("fsdp", 1000))
    ]
    device, host, _, _, many, _ = frontier_figures(table, "small")
    assert device.title == "small fsdp x2: time and peak on the device"
    assert many.title == "small fsdp x1000: time and peak on the device"
    for figure in (device, many):
        [point] = figure.spec["datasets"]["points"]
        assert point == {"seconds": 1.0, "ratio": pytest.approx(1.5), "strategy": "streamed", "kind": BEST}
    assert "multiples of S/N" in device.text
    assert "multiples of the model" in host.text
