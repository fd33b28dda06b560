"""Slow-downs that a comparison finds, and those that it says it could not have found, on made-up runs."""

import random
from collections.abc import Sequence
from math import exp
from pathlib import Path
from typing import Any

import pytest

from bench.history.baselines import Baselines
from bench.history.findings import SLOWER, TimeComparison, time_changes
from bench.history.runs import Key, Run
from bench.history.schema import PASSED
from bench.record.record import Record

KEY = Key("bench/test_load_time.py::test_load_time[streamed-small-cpu]", "float32", "warm", False)
THRESHOLD = 0.05

Fields = dict[str, Any]


def judged(before: Sequence[Fields], now: Fields, threshold: float = THRESHOLD) -> TimeComparison:
    runs = [
        Run(Path(f"{n:04}_x.json"), PASSED, {"cores": 2}, "c0ffee", str(n), {KEY: Record.read(one)})
        for n, one in enumerate(before)
    ]
    return time_changes(Baselines(runs, {"cores": 2}), {KEY: Record.read(now)}, threshold)


def loads(spread: float, count: int, seed: int = 1) -> list[Fields]:
    draw = random.Random(seed)
    return [{"load_seconds": 0.2 * exp(draw.gauss(0, spread))} for _ in range(count)]


def slower(times: TimeComparison) -> bool:
    return any(one.verdict == SLOWER for one in times.findings)


@pytest.mark.parametrize("count", [6, 11, 30])
@pytest.mark.parametrize("spread", [0.06, 0.1, 0.2])
def test_a_slow_down_just_above_what_is_said_is_found_and_one_just_below_is_not(spread: float, count: int) -> None:
    before = loads(spread, count)
    middle = sorted(one["load_seconds"] for one in before)
    usual = (middle[(count - 1) // 2] * middle[count // 2]) ** 0.5
    [unseen] = judged(before, {"load_seconds": usual}).unseen
    assert (unseen.key, unseen.figure, unseen.runs) == (KEY, "load_seconds", count)
    assert not slower(judged(before, {"load_seconds": usual * (1 + 0.999 * unseen.below)}))
    assert slower(judged(before, {"load_seconds": usual * (1 + 1.001 * unseen.below)}))


def test_nothing_is_said_of_what_is_seen_well_or_found_or_was_let_through_by_the_user() -> None:
    assert judged(loads(0.005, 30), {"load_seconds": 0.2}).unseen == ()
    noisy = loads(0.1, 30)
    found = judged(noisy, {"load_seconds": 0.6})
    assert (slower(found), found.unseen) == (True, ())
    assert judged(noisy, {"load_seconds": 0.2}, threshold=2.0).unseen == ()
    assert judged(loads(0.1, 5), {"load_seconds": 0.2}).unseen == ()


def busy(draw: random.Random, slow: float = 1.0) -> Fields:
    """A load on a machine that other work slows down by half or double, its limit as much as the load."""
    share = exp(draw.gauss(0, 0.5))
    return {
        "load_seconds": 0.2 * share * slow * exp(draw.gauss(0, 0.02)),
        "limit_bytes_per_second": 5e9 / share * exp(draw.gauss(0, 0.02)),
    }


def test_a_slow_down_of_a_third_is_found_where_other_work_slows_load_and_limit_down() -> None:
    draw, found, alarms = random.Random(2), 0, 0
    for _ in range(100):
        before = [busy(draw) for _ in range(30)]
        found += slower(judged(before, busy(draw, 1.3)))
        alarms += slower(judged(before, busy(draw)))
    assert (found >= 95, alarms) == (True, 0)
    [finding] = judged(before, busy(draw, 1.3)).findings
    assert finding.against.startswith("30 runs beside their limit: ")
    assert 1.2 < (finding.change.after or 0) / (finding.change.before or 1) < 1.4


def test_a_limit_that_says_nothing_of_the_load_is_not_looked_at() -> None:
    draw = random.Random(3)
    before = [one | {"limit_bytes_per_second": 5e9 * exp(draw.gauss(0, 0.3))} for one in loads(0.01, 30)]
    # A limit that doubled by chance does not make a load slow that takes as long as ever.
    assert judged(before, {"load_seconds": 0.2, "limit_bytes_per_second": 1e10}).findings == []
    [finding] = judged(before, {"load_seconds": 0.24, "limit_bytes_per_second": 5e9}).findings
    assert finding.against.startswith("30 runs: ")
    now = {"load_seconds": 0.2, "limit_bytes_per_second": 5e9}
    assert judged([*loads(0.01, 29), before[0]], now).findings == []
    assert judged(before, {"load_seconds": 0.2}).findings == []
