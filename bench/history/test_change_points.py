import random
from math import exp
from pathlib import Path
from typing import Any

from bench.history.change_points import change_points
from bench.history.runs import Key, Run
from bench.history.schema import FAILED, PASSED
from bench.record.record import Record
from bench.report.history_section import history_lines, history_markdown

KEY = Key("bench/test_load_time.py::test_load_time[streamed-small-cpu]", "float32", "warm", False)


def run(number: int, outcome: str = PASSED, machine: dict[str, Any] | None = None, **record: Any) -> Run:
    mark = "" if outcome == PASSED else f"{outcome}-"
    return Run(
        file=Path(f"{mark}{number:04}_c0ffee.json"),
        outcome=outcome,
        machine={"torch": "2.13.0", "cores": 2} | (machine or {}),
        commit=f"{number:040}",
        moment=f"2026-11-{number:02}T03:17:00",
        records={KEY: Record.read(record)},
    )


def nights(count: int) -> list[float]:
    draw = random.Random(count)
    return [0.2 * exp(draw.gauss(0, 0.01)) for _ in range(count)]


def test_a_step_is_found_with_its_run_its_commit_and_its_torch() -> None:
    runs = [run(number, load_seconds=seconds) for number, seconds in enumerate(nights(12), 1)]
    newer = {"torch": "2.14.0"}
    runs += [run(n, FAILED, newer, load_seconds=1.2 * seconds) for n, seconds in enumerate(nights(6), 13)]
    [point], series = change_points(runs)
    assert series == 1
    assert point.run is runs[12]
    assert (point.change.figure, point.change.replaces) == ("load_seconds", "0012_c0ffee")
    assert 1.15 < (point.change.after or 0) / (point.change.before or 1) < 1.25
    row = history_lines(runs, [], 200)[-2].split()
    assert row[:6] == ["0013", "(failed)", "2026-11-13", "0000000", "2.14.0", "streamed-small-cpu"]
    narrow = history_lines(runs, [], 80)
    assert max(map(len, narrow)) <= 80
    assert "2.14.0" in narrow[-2]
    assert narrow[0] == "18 runs from 2026-11-01 to 2026-11-18: 12 passed, 6 failed"
    assert narrow[-1] == "1 of 1 series moved"
    assert "| 0013 (failed) | 2026-11-13 |" in history_markdown(runs, [])


def test_other_hardware_is_another_series_and_requested_peaks_are_one() -> None:
    here = [run(n, load_seconds=s, device_requested_peak_bytes=100) for n, s in enumerate(nights(8), 1)]
    there = [
        run(n, machine={"cores": 64}, load_seconds=s / 9, device_requested_peak_bytes=101 if n > 12 else 100)
        for n, s in enumerate(nights(8), 9)
    ]
    [point], series = change_points([*here, *there])
    assert series == 3
    assert point.run is there[4]
    assert point.change.figure == "device_requested_peak_bytes"


def test_the_last_run_is_enough_where_bytes_are_exact_and_host_memory_has_slack() -> None:
    runs = [run(n, device_allocated_peak_bytes=512 if n < 9 else 513) for n in range(1, 10)]
    [point], _ = change_points(runs)
    assert point.run is runs[-1]
    assert change_points([run(n, host_private_peak_bytes=n % 2 * 10**6) for n in range(1, 20)])[0] == []
    grown = [run(n, host_private_peak_bytes=(100 if n < 10 else 150) * 10**6 + n * 1000) for n in range(1, 20)]
    [point], _ = change_points(grown)
    assert point.run is grown[9]


def test_without_runs_that_is_said() -> None:
    assert history_lines([], ["x.json cannot be read"], 80) == [
        *("PASSED OVER: x.json cannot be read", "No run is recorded", "0 of 0 series moved")
    ]
