"""Promises of the statistic, by simulation: seeds are fixed, so these tests cannot be unlucky tomorrow."""

import random
from math import exp, log, sqrt
from statistics import stdev

import pytest

from bench.history.spread import FALSE_ALARMS, WINDOW, expected, qn, usual_spread

NIGHTS = 5_000


def quiet(draw: random.Random) -> float:
    """A time on a machine that is off by 1.5 % from night to night."""
    return 0.2 * exp(draw.gauss(0, 0.015))


def beyond(count: int, figures: int, change: float = 1.0) -> float:
    """Return the part of nights beyond the interval of a window of `count` runs."""
    draw, found = random.Random(count), 0
    for _ in range(NIGHTS):
        _, _, highest = expected([quiet(draw) for _ in range(count)], figures)
        found += change * quiet(draw) > highest
    return found / NIGHTS


@pytest.mark.parametrize("count", [6, 8, 15, WINDOW])
def test_chance_alone_is_called_a_change_as_rarely_as_is_said(count: int) -> None:
    assert beyond(count, figures=1) < 1.5 * FALSE_ALARMS


def test_with_many_figures_a_run_is_called_changed_no_more_often() -> None:
    assert 14 * beyond(WINDOW, figures=14) < 1.5 * FALSE_ALARMS


def test_a_slow_down_of_a_tenth_is_found_where_nights_differ_by_a_percent_or_two() -> None:
    assert beyond(WINDOW, figures=1, change=1.1) > 0.95


def test_one_bad_night_does_not_blind_the_gate() -> None:
    draw = random.Random(1)
    sound = [quiet(draw) for _ in range(WINDOW)]
    _, _, highest = expected(sound, 1)
    _, _, with_outlier = expected([*sound[1:], 2.0], 1)
    assert with_outlier < 1.02 * highest
    assert qn([*sound[1:], 2.0]) < 1.3 * qn(sound) < 0.1 * stdev([*sound[1:], 2.0])


@pytest.mark.parametrize("count", [2, 3, 5, 6, 9, 10, 11, 30])
def test_qn_is_on_the_scale_of_a_standard_deviation(count: int) -> None:
    draw = random.Random(count)
    mean = sum(qn([draw.gauss(0, 3) for _ in range(count)]) for _ in range(4000)) / 4000
    assert mean == pytest.approx(3, rel=0.05)


def test_values_that_do_not_differ_have_no_spread() -> None:
    assert qn([5.0] * 10) == 0
    assert expected([5.0] * 10, 3) == pytest.approx((5.0, 5.0, 5.0))


def falsely_called(draw: random.Random, spreads: list[float], common: float, nights: int) -> tuple[int, int]:
    """Count nights with noise in `common` in which a figure is called slower, and in which one of a third is found."""

    def night() -> list[float]:
        shared = draw.gauss(0, 1)
        return [exp(one * (common * shared + sqrt(1 - common**2) * draw.gauss(0, 1))) for one in spreads]

    alarms = found = 0
    for _ in range(nights):
        windows, now = list(zip(*(night() for _ in range(8)), strict=True)), night()
        usual = usual_spread(windows)
        highest = [expected(window, len(windows), usual)[2] for window in windows]
        alarms += any(one > most for one, most in zip(now, highest, strict=True))
        found += 1.3 * now[0] > highest[0]
    return alarms, found


@pytest.mark.parametrize("common", [0.0, 0.7, 0.95])
@pytest.mark.parametrize("odd", [1, 4])
def test_the_spread_of_others_finds_more_in_eight_runs_and_calls_no_more_changed(common: float, odd: float) -> None:
    alarms, found = falsely_called(random.Random(1), [0.025] * 13 + [0.025 * odd], common, 400)
    assert alarms <= 4
    assert found >= 0.85 * 400


def test_few_figures_do_not_lend_each_other_their_spread() -> None:
    window = [1.0, 1.1, 0.9, 1.05, 0.97, 1.02]
    assert usual_spread([window] * 5) is None
    assert usual_spread([window] * 6) == pytest.approx(qn([log(value) for value in window]))
    assert expected(window, 6, 0.0)[2] < expected(window, 6)[2]
