"""Promises of the step fit, by simulation with fixed seeds."""

import random
from math import exp

import pytest

from bench.history.steps import steps


def series(draw: random.Random, levels: list[tuple[int, float]], noise: float = 0.02) -> list[float]:
    """Values around each of the levels in turn, so many of each."""
    return [level * exp(draw.gauss(0, noise)) for count, level in levels for _ in range(count)]


@pytest.mark.parametrize("count", [5, 8, 15, 30, 200])
def test_noise_is_hardly_ever_a_step(count: int) -> None:
    draw = random.Random(count)
    assert sum(bool(steps(series(draw, [(count, 0.2)]))) for _ in range(500)) <= 5


def test_one_bad_night_is_no_step() -> None:
    draw, found = random.Random(1), 0
    for _ in range(200):
        values = series(draw, [(60, 0.2)])
        values[draw.randrange(60)] *= 1.5
        found += bool(steps(values))
    assert found <= 2


def test_a_step_of_a_tenth_is_found_where_it_is_three_nights_after() -> None:
    draw = random.Random(2)
    found = [steps(series(draw, [(57, 0.2), (3, 0.22)])) for _ in range(200)]
    assert sum(len(one) == 1 and abs(one[0] - 57) <= 1 for one in found) >= 190


def test_a_bump_in_the_middle_is_two_steps() -> None:
    draw = random.Random(3)
    found = [steps(series(draw, [(100, 0.2), (6, 0.23), (100, 0.2)])) for _ in range(50)]
    assert sum(len(one) == 2 and abs(one[0] - 100) <= 1 and abs(one[1] - 106) <= 1 for one in found) >= 48


def test_every_level_of_a_staircase_is_found() -> None:
    values = [1.0] * 10 + [1.2] * 10 + [0.9] * 10 + [1.5] * 2
    assert steps(values) == [10, 20, 30]


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [1.0] * 50])
def test_what_is_too_short_or_does_not_move_has_no_step(values: list[float]) -> None:
    assert steps(values) == []
