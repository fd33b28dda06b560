from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("altair", reason="pages want the extra: pip install '.[report]'")

from bench.record.record import Record
from bench.record.row_key import RowKey
from bench.report.page.charts.frontier import Point, _box, _ends, _names, _shared, frontier, frontier_figures
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


def test_names_do_not_meet_where_there_is_room() -> None:
    """Points of a recorded run, in which four strategies have the same peak."""
    seconds = {"baseline": 2.24, "sequential": 2.04, "meta_sequential": 0.85, "load_assign": 0.54, "mmap_assign": 0.12}
    seconds |= {"streamed": 0.22, "per_tensor": 0.69}
    device = {"baseline": 2.0, "sequential": 1.22, "meta_sequential": 2.0}
    drawn = [Point(at, device.get(name, 1.0), name) for name, at in seconds.items()]
    ends = _ends(drawn)
    by_name = {point.strategy: point for point in drawn}
    boxes = [_box(by_name[one["strategy"]], ends, place) for place, names in _names(drawn).items() for one in names]
    assert len(boxes) == len(drawn)
    assert not [pair for pair in combinations(boxes, 2) if _shared(*pair) > 0]


def row(strategy: str, size: str = "small", problem: Problem | None = None, **record: float) -> Row:
    return Row(RowKey(strategy, size), Record.read(record), (problem,) if problem else ())


def test_a_chart_has_what_was_measured_whole_and_is_right() -> None:
    table = [
        row("a", first_logits_seconds=1.0, host_peak_ratio=0.5, device_peak_ratio=1.0),
        row("b", first_logits_seconds=2.0, host_peak_ratio=0.25),
        row("c", problem=Problem(Status.FAILED, "no"), first_logits_seconds=0.1, host_peak_ratio=0.0),
        row("d", host_peak_ratio=0.1),
        row("e", "xl", first_logits_seconds=0.1, host_peak_ratio=0.1),
    ]
    device, host = frontier_figures(table, "small")
    assert [p["strategy"] for p in device.spec["datasets"]["points"]] == ["a"]
    assert [p["strategy"] for p in host.spec["datasets"]["points"]] == ["a", "b"]
    assert [line[-1] for line in host.table] == ["on the frontier", "yes", "yes"]
    assert frontier_figures(table, "medium") == []


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
        assert point == {"seconds": 1.0, "ratio": pytest.approx(1.5), "strategy": "streamed"}
    assert "multiples of S/N" in device.text
    assert "multiples of the model" in host.text
