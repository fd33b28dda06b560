"""Promises of the verdicts, by simulation with fixed seeds."""

import random
from math import exp, sqrt

import pytest

from bench.versus.interleaved_runs import InterleavedRuns
from bench.versus.run_figures import BenchmarkKey, RunFigures
from bench.versus.side_comparison import CONFIDENCE, change_of, compare_sides, peak_verdict
from bench.versus.sides import Side

COMPARISONS = 500
THRESHOLD = 0.03
MIB = 2**20

ONE, OTHER, THIRD = (BenchmarkKey(f"test[{name}]") for name in ("one", "other", "third"))


def pairs(draw: random.Random, rounds: int, change: float = 1.0, noise: float = 0.02) -> list[tuple[float, float]]:
    """Times whose runs are off by `noise`; what the machine does to both runs of a round is far more."""
    weather = [exp(draw.gauss(0, 0.3)) for _ in range(rounds)]
    return [(each * exp(draw.gauss(0, noise)), each * change * exp(draw.gauss(0, noise))) for each in weather]


def found(verdict: str, rounds: int, change: float = 1.0, figures: int = 1) -> float:
    """In which fraction of comparisons that is the verdict."""
    draw = random.Random(rounds)
    verdicts = [change_of(pairs(draw, rounds, change), THRESHOLD, figures).verdict for _ in range(COMPARISONS)]
    return verdicts.count(verdict) / COMPARISONS


@pytest.mark.parametrize("rounds", [3, 4, 5, 10])
@pytest.mark.parametrize("figures", [1, 14])
def test_chance_alone_is_called_a_change_as_rarely_as_is_said(rounds: int, figures: int) -> None:
    draw, alarms = random.Random(rounds), 0
    for _ in range(COMPARISONS):
        changes = [change_of(pairs(draw, rounds), 0.0, figures) for _ in range(figures)]
        alarms += any(change.verdict in ("slower", "faster") for change in changes)
    assert 0.5 * (1 - CONFIDENCE) < alarms / COMPARISONS < 1.3 * (1 - CONFIDENCE)


@pytest.mark.parametrize(("figures", "at_least"), [(1, 0.99), (2, 0.98), (14, 0.75)])
def test_a_slow_down_of_a_tenth_is_found_in_five_rounds_that_are_off_by_two_percent(
    figures: int, at_least: float
) -> None:
    assert found("slower", 5, change=1.1, figures=figures) > at_least
    assert found("faster", 5, change=1 / 1.1, figures=figures) > at_least


def test_three_rounds_find_a_slow_down_of_a_tenth_less_often() -> None:
    assert 0.75 < found("slower", 3, change=1.1) < 0.9


def test_a_change_below_the_threshold_is_the_same_where_there_are_rounds_enough() -> None:
    assert found("same", 40, change=1.01) > 0.95
    assert found("slower", 40, change=1.01) == 0


@pytest.mark.parametrize("change", [1.05, 1.01])
def test_as_many_rounds_as_are_said_to_decide_mostly_do(change: float) -> None:
    # Two runs whose mean is the change, and whose spread is that of a pair.
    off = exp(0.02 * sqrt(2) / sqrt(2))
    undecided = change_of([(1.0, change * off), (1.0, change / off), (1.0, change)], THRESHOLD, 1)
    assert undecided.verdict == "undecided"
    assert undecided.rounds_to_decide is not None
    draw = random.Random(1)
    spread = 0.02 / sqrt(2)
    verdicts = [
        change_of(pairs(draw, undecided.rounds_to_decide, change, spread), THRESHOLD, 1).verdict
        for _ in range(COMPARISONS)
    ]
    assert 0.7 < 1 - verdicts.count("undecided") / COMPARISONS < 0.97


def test_what_no_reasonable_number_of_rounds_decides_is_said_to_take_more() -> None:
    change = change_of([(1.0, 2.0), (2.0, 1.0), (1.0, 1.03)], THRESHOLD, 1)
    assert (change.verdict, change.rounds_to_decide) == ("undecided", None)


def test_sides_that_change_places_change_their_verdicts() -> None:
    draw = random.Random(2)
    for drawn in (*(pairs(draw, 5, change) for change in (1.0, 1.03, 1.1)), [(1.0, 1.0302)] * 3):
        one, other = change_of(drawn, THRESHOLD, 1), change_of([pair[::-1] for pair in drawn], THRESHOLD, 1)
        assert one.verdict == {"slower": "faster", "faster": "slower"}.get(other.verdict, other.verdict)
        assert (one.ratio, one.lowest) == pytest.approx((1 / other.ratio, 1 / other.highest))


@pytest.mark.parametrize(
    ("figure", "reference", "candidate", "verdict"),
    [
        ("device_requested_peak_bytes", 1000, 1010, "same"),
        ("device_requested_peak_bytes", 1000, 1011, "grew"),
        ("device_requested_peak_bytes", 1000, 989, "shrank"),
        ("host_pinned_peak_bytes", 0, 1, "grew"),
        ("host_private_peak_bytes", 0, 4 * MIB, "same"),
        ("host_private_peak_bytes", 0, 4 * MIB + 1, "grew"),
        ("host_file_peak_bytes", 1000 * MIB, 1010 * MIB, "same"),
        ("host_file_peak_bytes", 1000 * MIB, 1011 * MIB, "grew"),
        ("host_file_peak_bytes", 1000 * MIB, 989 * MIB, "shrank"),
    ],
)
def test_peaks_change_beyond_the_threshold_and_beyond_their_slack(
    figure: str, reference: int, candidate: int, verdict: str
) -> None:
    assert peak_verdict(figure, reference, candidate, 0.01) == verdict


def measured(*rounds: tuple[RunFigures, RunFigures]) -> InterleavedRuns:
    return InterleavedRuns(Side("main", commit="0" * 40), Side("here"), rounds)


def test_every_round_is_a_pair() -> None:
    # Either side varies by half, but in every round alike.
    result = compare_sides(
        measured(*(({ONE: {"load_seconds": t}}, {ONE: {"load_seconds": 1.1 * t}}) for t in (1.0, 1.5, 1.2))), 0.05, 0
    )
    [time] = result.times
    assert time.change.verdict == "slower"
    assert time.change.ratio == pytest.approx(1.1)
    assert time.candidate / time.reference == pytest.approx(1.1)
    assert result.regressed
    assert (result.reference, result.candidate, result.rounds) == ("main", "here", 3)


def test_the_error_is_shared_by_all_times_that_are_looked_at() -> None:
    times = {"load_seconds": 1.0, "first_logits_seconds": 1.0}
    noisy = [1.0, 1.01, 1.02]
    [alone] = compare_sides(
        measured(*(({ONE: {"load_seconds": 1}}, {ONE: {"load_seconds": t}}) for t in noisy)), 0, 0
    ).times
    shared = compare_sides(measured(*(({ONE: times}, {ONE: dict.fromkeys(times, t)}) for t in noisy)), 0, 0).times
    assert [one.change.highest > alone.change.highest for one in shared] == [True, True]


def test_a_faster_and_smaller_candidate_has_not_regressed() -> None:
    before = {"load_seconds": 1.0, "device_requested_peak_bytes": 100}
    after = {"load_seconds": 0.5, "device_requested_peak_bytes": 50}
    result = compare_sides(measured(*[({ONE: before}, {ONE: after})] * 3), 0.05, 0)
    assert ([one.change.verdict for one in result.times], [one.verdict for one in result.peaks]) == (
        ["faster"],
        ["shrank"],
    )
    assert not result.regressed


def test_a_peak_is_the_median_of_its_rounds() -> None:
    rounds = [
        ({ONE: {"host_private_peak_bytes": 9 * MIB}}, {ONE: {"host_private_peak_bytes": x}}) for x in (1, 2, 9**9)
    ]
    [peak] = compare_sides(measured(*rounds), 0, 0).peaks
    assert (peak.reference, peak.candidate, peak.equal, peak.verdict) == (9 * MIB, 2, False, "shrank")


def test_a_candidate_that_grew_has_regressed() -> None:
    result = compare_sides(
        measured(*[({ONE: {"host_pinned_peak_bytes": 8}}, {ONE: {"host_pinned_peak_bytes": 9}})] * 3), 0, 0
    )
    assert [(peak.equal, peak.verdict) for peak in result.peaks] == [(False, "grew")]
    assert result.regressed


def test_what_is_not_on_both_sides_is_named_and_not_judged() -> None:
    seconds = {"load_seconds": 1.0}
    rounds = [({ONE: seconds, OTHER: seconds}, {OTHER: seconds, THIRD: seconds})] * 3
    result = compare_sides(measured(*rounds), 0, 0)
    assert (result.only_reference, result.only_candidate) == ((ONE,), (THIRD,))
    assert [time.benchmark for time in result.times] == [OTHER]


def test_figures_that_one_side_does_not_record_are_not_judged() -> None:
    both = {"load_seconds": 1.0}
    result = compare_sides(measured(*[({ONE: both}, {ONE: both | {"first_logits_seconds": 2.0}})] * 3), 0, 0)
    assert [time.figure for time in result.times] == ["load_seconds"]


def test_a_benchmark_that_was_skipped_in_too_many_rounds_is_unmeasured() -> None:
    seconds = {"load_seconds": 1.0}
    whole, without = {ONE: seconds, OTHER: seconds}, {ONE: seconds}
    result = compare_sides(measured((whole, whole), (whole, without), (without, whole), (whole, whole)), 0, 0)
    assert ([time.benchmark for time in result.times], result.unmeasured) == ([ONE], (OTHER,))


def test_two_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="2 rounds say nothing of their spread; make 3 or more"):
        compare_sides(measured(*[({}, {})] * 2), 0, 0)
