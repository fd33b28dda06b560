"""Times that creep, by simulation with fixed seeds."""

import random
from math import exp
from pathlib import Path

import pytest

from bench.history.change_points import change_points
from bench.history.creep import Creep, creeps
from bench.history.runs import Key, Run
from bench.history.schema import PASSED
from bench.history.steps import steps
from bench.record.record import Record
from bench.report.history_section import history_lines, history_markdown

# So many figures have a history in the main job.
SERIES = 14


def found(values: list[float]) -> list[Creep]:
    return creeps(values, steps(values), SERIES)


def noisy(draw: random.Random, values: list[float], noise: float) -> list[float]:
    return [value * exp(draw.gauss(0, noise)) for value in values]


@pytest.mark.parametrize("count", [10, 15, 30, 60])
def test_noise_hardly_ever_creeps(count: int) -> None:
    draw = random.Random(count)
    assert sum(bool(found(noisy(draw, [0.2] * count, 0.05))) for _ in range(300)) <= 1


@pytest.mark.parametrize("noise", [0.015, 0.03])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (20, 0), (10, 10)])
def test_two_percent_a_run_are_found_within_fifteen_runs(noise: float, before: int, after: int) -> None:
    draw, count = random.Random(1), 0
    creeping = [1.0] * before + [1.02**place for place in range(15)] + [1.02**14] * after
    for _ in range(60):
        values = noisy(draw, creeping, noise)
        count += any(one.start < before + 8 < one.end and one.after > 1.15 * one.before for one in found(values))
    assert count >= 57


@pytest.mark.parametrize("levels", [[(15, 1.0), (15, 1.3)], [(30, 1.0), (3, 1.5)], [(12, 1.0), (12, 1.2), (12, 1.4)]])
def test_steps_do_not_creep(levels: list[tuple[int, float]]) -> None:
    draw = random.Random(2)
    values = [level for count, level in levels for _ in range(count)]
    assert sum(bool(found(noisy(draw, values, 0.015))) for _ in range(50)) == 0


def test_one_bad_night_hides_no_creep_and_makes_none() -> None:
    draw = random.Random(3)
    creeping = noisy(draw, [1.02**place for place in range(16)], 0.015)
    creeping[7] *= 1.6
    assert [(one.start, one.end) for one in found(creeping)] == [(0, 16)]
    still = noisy(draw, [1.0] * 16, 0.015)
    still[-1] *= 1.6
    assert found(still) == []


@pytest.mark.parametrize("values", [[], [1.0], [1.0] * 9, [1.0] * 40, [1.0, 2.0] * 20])
def test_what_is_too_short_or_does_not_move_does_not_creep(values: list[float]) -> None:
    assert found(values) == []


def history(values: list[float], figure: str) -> list[Run]:
    key = Key("bench/test_load_time.py::test_load_time[streamed-small-cpu]", "float32", "warm", False)
    return [
        Run(
            Path(f"{n:04}_c.json"),
            PASSED,
            {"cores": 2},
            "c0ffee",
            f"2026-11-{n:02}",
            {key: Record.read({figure: value})},
        )
        for n, value in enumerate(values, 8)
    ]


def test_what_crept_is_one_line_with_its_runs_and_no_steps_are_told_of_it() -> None:
    runs = history([1.02**place for place in range(12)], "load_seconds")
    [point], _ = change_points(runs)
    assert (point.since, point.run, point.crept) == (runs[0], runs[-1], 12)
    line = "streamed-small-cpu: load crept up 24 % over 12 runs (0008..0019)"
    assert history_lines(runs, [], 80)[-2:] == [line, "1 of 1 series moved"]
    assert f"- {line}" in history_markdown(runs, [])
    down = history([0.98**place for place in range(12)], "load_seconds")
    assert history_lines(down, [], 80)[1] == "streamed-small-cpu: load crept down 20 % over 12 runs (0008..0019)"


def test_host_memory_creeps_only_beyond_its_slack() -> None:
    [point], _ = change_points(history([(100 + place) * 2**20 for place in range(12)], "host_private_peak_bytes"))
    assert point.crept >= 10
    little = [(100 + place / 4) * 2**20 for place in range(12)]
    assert change_points(history(little, "host_private_peak_bytes"))[0] == []
