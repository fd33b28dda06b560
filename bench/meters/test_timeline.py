import json
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.meters.phase_times import PhaseTimes
from bench.meters.timeline import CORNERS, MOST_POINTS, Point, Series, changes, raised, series, thinned, timeline

MIB = 2**20


@st.composite
def points(draw: st.DrawFn) -> list[Point]:
    """Return points in the order of time, in clusters as those of a load."""
    steps = draw(st.lists(st.tuples(st.sampled_from((0.0, 1e-6, 0.001, 0.5)), st.integers(0, 9)), min_size=1))
    repeated = steps * draw(st.integers(1, 40))
    return list(zip(accumulate(seconds for seconds, _ in repeated), (count for _, count in repeated), strict=True))


def is_part(some: list[Point], whole: list[Point]) -> bool:
    """Return True if they are points of the whole, in their order."""
    rest = iter(whole)
    return all(point in rest for point in some)


@given(points(), st.integers(CORNERS, 40))
def test_thinned_out_the_first_the_last_and_the_highest_stay(whole: list[Point], most: int) -> None:
    kept = thinned(whole, most)
    assert len(kept) <= most
    assert is_part(kept, whole)
    assert (kept[0], kept[-1]) == (whole[0], whole[-1])
    counts = [count for _, count in whole]
    assert max(count for _, count in kept) == max(counts)
    assert min(count for _, count in kept) == min(counts)
    assert kept == whole or len(whole) > most


def test_a_spike_and_a_gap_that_stand_for_a_moment_stay() -> None:
    whole = [(index / 1000, 50) for index in range(5000)]
    whole[1234], whole[3210] = (1.234, 99), (3.210, 1)
    kept = thinned(whole)
    assert whole[1234] in kept
    assert whole[3210] in kept
    assert len(kept) <= MOST_POINTS


@given(points())
def test_what_did_not_change_is_left_out(whole: list[Point]) -> None:
    kept = changes(whole)
    assert is_part(kept, whole)
    assert (kept[0], kept[-1]) == (whole[0], whole[-1])
    assert all(one[1] != next_one[1] for one, next_one in pairwise(kept[:-1]))
    assert [count for _, count in changes(kept)] == [count for _, count in kept]


@given(points(), st.floats(-1.0, 30.0))
def test_a_series_is_in_order_begins_with_nothing_and_has_its_peak(whole: list[Point], began: float) -> None:
    peak = max(count for _, count in whole)
    made = series(whole, began, whole[-1][0] + 1, peak)
    assert made
    assert made.seconds[0] == made.bytes[0] == 0
    assert list(made.seconds) == sorted(made.seconds)
    assert len(made.seconds) == len(made.bytes) <= MOST_POINTS
    assert max(made.bytes) == peak
    assert made.bytes[-1] == whole[-1][1]
    assert all(round(at, 4) == at for at in made.seconds)


@pytest.mark.parametrize("peak", [0, 99, 101])
def test_where_points_are_missing_there_is_no_series(peak: int) -> None:
    assert series([(1.0, 100), (2.0, 7)], 0.5, 3.0, peak) is None


def test_a_series_reaches_from_the_beginning_to_the_end() -> None:
    """A sample from before the load began counts at its beginning; below the level before it is nothing."""
    seen = [(9.0, 0), (10.25, 100), (10.5, 100), (10.75, -5)]
    assert series(seen, 10.0, 12.0, 100) == Series((0.0, 0.25, 0.75, 2.0), (0, 100, 0, 0))
    # Threads may write down what they did in another order than they did it.
    assert series([(10.5, 100), (10.25, 50)], 10.0, 12.0, 100) == Series((0.0, 0.5, 0.5, 2.0), (0, 100, 50, 50))
    assert series([], 10.0, 12.0, 0) == Series((0.0, 2.0), (0, 0))


@given(points(), st.integers(0, 20))
def test_only_the_highest_point_is_raised_to_the_peak(whole: list[Point], unseen: int) -> None:
    most = max(count for _, count in whole)
    higher = raised(whole, most + unseen)
    assert max(count for _, count in higher) == most + unseen
    assert [at for at, _ in higher] == [at for at, _ in whole]
    [changed] = [one for one, before in zip(higher, whole, strict=True) if one != before] or [(0.0, most)]
    assert changed[1] == most + unseen


def test_a_timeline_tells_what_is_known_and_survives_json() -> None:
    moments = {"first_logits": 14.0, "copy": 13.0, "build": 11.00004}
    seen = {"device_requested_bytes": [(12.0, 5)], "host_file_bytes": [(12.0, 3)], "host_private_bytes": [(12.0, 1)]}
    peaks = {"device_requested_bytes": 5, "host_private_bytes": None, "host_file_bytes": 3, "host_pinned_bytes": 0}
    made = timeline(10.0, moments, 15.0, seen, peaks).as_record()
    assert json.loads(json.dumps(made)) == {
        "moments": {"build": 1.0, "copy": 3.0, "first_logits": 4.0},
        "device_requested_bytes": {"seconds": [0.0, 2.0, 3.0], "bytes": [0, 5, 5]},
        "host_private_bytes": None,
        "host_file_bytes": {"seconds": [0.0, 2.0, 5.0], "bytes": [0, 3, 3]},
        "host_pinned_bytes": None,
    }
    assert list(made["moments"]) == ["build", "copy", "first_logits"]


def test_the_first_and_the_last_return_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter((1.0, 2.0, 3.0, 4.0))
    monkeypatch.setattr("time.monotonic", lambda: next(seconds))
    moments = PhaseTimes()
    first, last = moments.first("build", lambda: "built"), moments.last("load", lambda name: name)
    assert (last("a"), first(), last("b"), first()) == ("a", "built", "b", "built")
    assert moments.seconds == {"load": 3.0, "build": 2.0}
