"""Runs on a stand-in for a GPU beside those on a GPU: bytes are compared, times are not."""

from typing import Any

import pytest

from bench.history.runs import read_run
from bench.report.history_section import history_lines
from bench.selftest.small_suite import MACHINE, Suite, lines, load

GPU = MACHINE | {"gpus": ["NVIDIA H200"]}
STAND_IN = MACHINE | {"gpus": ["stand-in for a GPU"], "stand_in": "80 GiB"}
LATER = "--benchmark-compare"


def on_gpu(**fields: Any) -> dict[str, Any]:
    return load(device="cuda", device_reserved_peak_bytes=10**9, **fields)


def on_stand_in(**fields: Any) -> dict[str, Any]:
    times = dict.fromkeys(("bytes_per_second", "load_seconds", "first_logits_seconds"))
    return on_gpu(stand_in="80 GiB") | times | fields


def test_no_time_of_a_gpu_is_missed_on_a_stand_in_nor_one_of_a_stand_in_on_a_gpu(suite: Suite) -> None:
    suite.record(8, lambda _: {"one": on_gpu()}, GPU)
    result = suite({"one": on_stand_in()}, LATER, machine=STAND_IN)
    assert result.ret == pytest.ExitCode.OK
    assert any(
        "0 benchmarks compared, 1 in what they ask a device for: nothing grew" in line for line in result.outlines
    )
    [said] = lines(result, "NOT COMPARED: times, host bytes and allocator bytes of 1 benchmark")
    assert "gpus: ['NVIDIA H200'] -> ['stand-in for a GPU']" in said
    again = suite({"one": on_gpu()}, LATER, machine=GPU)
    assert again.ret == pytest.ExitCode.OK
    assert any("stand-in for a GPU (80 GiB)) and 8 before it" in line for line in again.outlines)


def test_not_even_times_that_a_stand_in_should_not_have_are_compared(suite: Suite) -> None:
    suite.record(8, lambda _: {"one": on_stand_in(load_seconds=9.0, bytes_per_second=1.0)}, STAND_IN)
    assert not lines(suite({"one": on_gpu()}, LATER, machine=GPU), "faster")
    suite.record(8, lambda _: {"one": on_gpu()}, GPU)
    slow = suite({"one": on_stand_in(load_seconds=9.0, bytes_per_second=1.0)}, LATER, machine=STAND_IN)
    assert slow.ret == pytest.ExitCode.OK


@pytest.mark.parametrize(("before", "now"), [(GPU, STAND_IN), (STAND_IN, GPU), (STAND_IN, STAND_IN)])
def test_what_tensors_ask_for_is_compared_with_that_of_a_gpu(
    suite: Suite, before: dict[str, Any], now: dict[str, Any]
) -> None:
    record = {True: on_stand_in, False: on_gpu}
    suite.record(1, lambda _: {"one": record["stand_in" in before]()}, before)
    grown = {"one": record["stand_in" in now](device_requested_peak_bytes=1_100_000_000)}
    result = suite(grown, LATER, machine=now)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert lines(result, "GREW  one        device requested peak")


def test_what_the_allocator_reserves_is_compared_between_stand_ins_of_equal_memory(suite: Suite) -> None:
    suite.record(1, lambda _: {"one": on_stand_in()}, STAND_IN)
    grown = {"one": on_stand_in() | {"device_reserved_peak_bytes": 1_100_000_000}}
    for machine, failed in ((STAND_IN, True), (STAND_IN | {"stand_in": "24 GiB"}, False), (GPU, False)):
        result = suite(grown, LATER, machine=machine)
        assert bool(lines(result, "GREW  one        device reserved peak")) == failed, machine


def test_history_says_which_runs_were_on_a_stand_in(suite: Suite) -> None:
    suite({"one": on_gpu()}, machine=GPU)
    suite({"one": on_stand_in(device_requested_peak_bytes=2 * 10**9)}, machine=STAND_IN)
    told = history_lines([read_run(file) for file in suite.files], [], 200)
    assert [line.split("  ")[0] for line in told if "+100.0 %" in line] == ["0002 (stand-in)"]
