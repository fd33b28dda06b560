"""Slower times are found by runs of pytest in simulated nights; seeds are fixed."""

import random
from math import exp

import pytest
from pytest_benchmark.storage.file import FileStorage

from bench.history.change_points import change_points
from bench.history.spread import WINDOW
from bench.plugin.storage import Storage
from bench.selftest.small_suite import Loads, Suite, lines, load

# Of a quiet machine: nights differ by so much.
NOISE = 0.015


def night(draw: random.Random, slow: dict[str, float]) -> Loads:
    """Draw the times of seven loads in a night without a change, or with a change of one of them."""
    return {
        name: load(
            load_seconds=0.2 * slow.get(name, 1) * exp(draw.gauss(0, NOISE)),
            first_logits_seconds=0.25 * slow.get(name, 1) * exp(draw.gauss(0, NOISE)),
        )
        for name in ("baseline", "sequential", "meta", "assign", "mmap", "streamed", "per_tensor")
    }


# Nights of a whole run each; `test_spread.py` has thousands of what judges them.
NIGHTS = 20


def test_noise_without_change_raises_no_alarm(suite: Suite) -> None:
    draw = random.Random(6)
    suite.record(WINDOW, lambda _: night(draw, {}))
    alarms = [suite(night(draw, {}), "--benchmark-compare").ret for _ in range(NIGHTS)]
    assert sum(alarms) == 0


def test_a_slow_down_of_ten_percent_is_found(suite: Suite) -> None:
    draw = random.Random(7)
    suite.record(WINDOW, lambda _: night(draw, {}))
    found = 0
    for _ in range(NIGHTS):
        result = suite(night(draw, {"streamed": 1.1}), "--benchmark-compare")
        found += bool(lines(result, "SLOWER  streamed")) and result.ret == pytest.ExitCode.TESTS_FAILED
    assert found >= NIGHTS - 1


def test_first_logits_are_not_compared_with_weights_that_were_only_read(suite: Suite) -> None:
    draw = random.Random(8)
    unasked = [night(draw, {}) for _ in range(8)]
    suite.record(8, lambda number: {name: one | {"first_use": "weights"} for name, one in unasked[number - 1].items()})
    asked = {name: one | {"first_use": "logits", "first_logits_seconds": 2.0} for name, one in night(draw, {}).items()}
    result = suite(asked, "--benchmark-compare")
    assert result.ret == pytest.ExitCode.OK
    assert lines(result, "7 benchmarks compared: nothing grew, nothing is slower")
    slower = suite({name: one | {"load_seconds": 2.0} for name, one in asked.items()}, "--benchmark-compare")
    assert {line.split()[2] for line in lines(slower, "SLOWER")} == {"load"}


def test_a_gain_that_is_lost_again_is_a_slow_down(suite: Suite) -> None:
    draw = random.Random(9)
    suite.record(WINDOW, lambda number: night(draw, {} if number <= 22 else {"streamed": 0.8}))
    result = suite(night(draw, {}), "--benchmark-compare")
    assert len(lines(result, "SLOWER  streamed")) == 2
    assert lines(
        result, "REGRESSION: 2 figures are worse. Every run fails until a run with --accept-regressions accepts it"
    )
    assert lines(result, "ERROR: 2 times became longer than in their recent runs, or are missing")


def test_a_busy_machine_is_no_regression_and_no_excuse(suite: Suite) -> None:
    draw = random.Random(10)

    def with_limit(slow: float, limit: float) -> Loads:
        loads = night(draw, {"streamed": slow})
        return {n: one | {"limit_bytes_per_second": limit * exp(draw.gauss(0, NOISE))} for n, one in loads.items()}

    suite.record(WINDOW, lambda _: with_limit(1, 1e10))
    busy = suite(with_limit(2, 6e9), "--benchmark-compare")
    assert busy.ret == pytest.ExitCode.OK
    assert len(lines(busy, "busy  streamed")) == 2
    assert lines(busy, "NOT JUDGED: the times of 1 benchmark: beside them the machine's own limit was lower, too")
    assert suite(with_limit(2, 6e9), "--require-comparison").ret == pytest.ExitCode.TESTS_FAILED
    # However long that lasts, it is nothing that later runs are held against.
    for _ in range(4):
        suite(with_limit(2, 6e9), "--benchmark-compare")
    later = suite(with_limit(2, 1e10), "--benchmark-compare")
    assert later.ret == pytest.ExitCode.TESTS_FAILED
    assert len(lines(later, "SLOWER  streamed")) == 2


def test_times_are_not_judged_before_their_spread_is_known(suite: Suite) -> None:
    suite.record(3, lambda number: {"one": load(load_seconds=0.2 + number / 1000)})
    result = suite({"one": load(load_seconds=3.0)}, "--benchmark-compare")
    assert result.ret == pytest.ExitCode.OK
    assert lines(result, "NOT JUDGED: the times of 1 benchmark: it takes 6 runs on this machine to tell their spread")


def test_an_accepted_slow_down_begins_a_new_window(suite: Suite) -> None:
    draw = random.Random(8)
    suite.record(WINDOW, lambda _: night(draw, {}))
    assert suite(night(draw, {"streamed": 1.5}), "--accept-regressions").ret == pytest.ExitCode.OK
    result = suite(night(draw, {"streamed": 1.5}), "--benchmark-compare")
    assert result.ret == pytest.ExitCode.OK
    assert lines(result, "NOT JUDGED: the times of 1 benchmark")


def test_hundreds_of_runs_are_read_and_compared(suite: Suite) -> None:
    """Its time is not for a test: see `results/README.md`."""
    draw = random.Random(11)
    suite.record(300, lambda number: night(draw, {"mmap": 1.2} if number > 200 else {}))
    result = suite(night(draw, {"mmap": 1.2, "streamed": 1.2}), "--benchmark-compare")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert [line.split()[1] for line in lines(result, "SLOWER")] == ["streamed", "streamed"]
    assert any("compared with 0300 (c0ffee, torch 2.13.0) and 299 before it" in line for line in result.outlines)
    points, series = change_points(Storage(FileStorage(suite.files[0].parents[1], None, "Machine")).runs())
    assert series == 7 * 5
    assert {(point.run.number[:3], point.change.key.title) for point in points} <= {("020", "mmap"), ("019", "mmap")}
    assert len(points) == 2


def test_runs_that_compare_nothing_do_not_make_a_slow_down_usual(suite: Suite) -> None:
    draw = random.Random(12)
    suite.record(WINDOW, lambda _: night(draw, {}) | {"one": load()})
    for _ in range(7):
        plain = suite(night(draw, {"streamed": 1.5}) | {"one": load(host_private_peak_bytes=2 * 10**9)})
        assert plain.ret == pytest.ExitCode.OK
    assert lines(plain, "3 figures are worse than recorded: --benchmark-compare says which")
    loads = night(draw, {"streamed": 1.5}) | {"one": load(host_private_peak_bytes=2 * 10**9)}
    result = suite(loads, "--benchmark-compare")
    assert len(lines(result, "SLOWER  streamed")) == 2
    assert len(lines(result, "GREW    one")) == 1
