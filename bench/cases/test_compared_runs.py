"""Runs of the suite itself that are held against recorded ones."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.cases.conftest import Bench, last_record, recorded

if not Path("/proc/self/clear_refs").exists():
    pytest.skip("needs Linux's /proc", allow_module_level=True)

# A plugin that knows one strategy more.
ONE_MORE = """
from bench.meters.test_faults import load_and_look
from bench.strategies import STRATEGIES, Strategy

STRATEGIES["load_and_look"] = Strategy(load_and_look, "torch", "S", "0", "0", "S")
"""

MEMORY = ("--strategies", "streamed,sequential", "-k", "peak_memory")


@pytest.fixture(scope="module")
def first_run(bench: Bench) -> "subprocess.CompletedProcess[str]":
    return bench(*MEMORY)


def change(file: Path, name: str, factor: float) -> None:
    """Let a recorded run say less or more of a figure."""
    run: dict[str, Any] = json.loads(file.read_text())
    for benchmark in run["benchmarks"]:
        benchmark["extra_info"][name] = int(benchmark["extra_info"][name] * factor)
    file.write_text(json.dumps(run))


@pytest.mark.usefixtures("first_run")
@pytest.mark.parametrize(("percent", "code"), [(0.9, 0), (1.1, 1)])
def test_a_regression_is_a_failure_that_says_what_grew_and_what_was_alive(
    bench: Bench, folder: Path, percent: float, code: int
) -> None:
    baseline = recorded(folder)[0]
    change(baseline, "device_requested_peak_bytes", 1 / (1 + percent / 100))
    try:
        run = bench(*MEMORY, "--benchmark-compare=0001")
    finally:
        change(baseline, "device_requested_peak_bytes", 1 + percent / 100)
    assert run.returncode == code, run.stdout
    lines = run.stdout.splitlines()
    rows = [line for line in lines if line.startswith("GREW  ")]
    assert len(rows) == 2 * code
    history = last_record(folder)["history"]
    assert history["outcome"] == ("failed" if code else "passed")
    assert len(last_record(folder)["benchmarks"]) == 2
    if code:
        [row] = [row for row in rows if " streamed-tiny-sim " in row]
        assert " device requested peak " in row
        assert " +1.1 %" in row
        alive = lines[lines.index(row) + 1]
        assert alive.startswith("    33.17 MiB in 39 tensors: streamed.py:")
        assert "Grown: device requested peak grew from 32." in run.stdout
        assert "Traceback" not in run.stdout + run.stderr


@pytest.mark.usefixtures("first_run")
def test_a_strategy_that_is_gone_has_vanished(bench: Bench) -> None:
    options = ("-k", "peak_memory and (streamed or look)", "--benchmark-compare")
    assert bench(*options, "--device", "cpu", plugin=ONE_MORE).returncode == 0
    gone = bench(*options, "--device", "cpu")
    assert gone.returncode == 1, gone.stdout
    assert "VANISHED: test_peak_memory[load_and_look-tiny-cpu], last recorded in 0" in gone.stdout
    for narrower in (("--device", "cpu", "--strategies", "streamed"), ("--device", "sim")):
        run = bench(*options, *narrower)
        assert run.returncode == 0, run.stdout
        assert "VANISHED" not in run.stdout


@pytest.mark.usefixtures("first_run")
def test_other_machines_peaks_are_compared_and_their_times_are_not(bench: Bench, folder: Path) -> None:
    options = ("--strategies", "sequential", "-k", "load_time")
    assert bench(*options).returncode == 0
    file = recorded(folder)[-1]
    file.write_text(file.read_text().replace('"torch": "', '"torch": "0.'))
    run = bench(*options, "--require-comparison")
    assert run.returncode == 1, run.stdout
    assert "NOT COMPARED: times, host bytes and allocator bytes of 1 benchmark" in run.stdout
    assert "(torch: 0.2." in run.stdout
    assert "ERROR: --require-comparison: not everything could be compared" in run.stdout
    assert "(NOW)" not in run.stdout


@pytest.mark.usefixtures("first_run")
def test_a_planned_load_is_another_benchmark(bench: Bench) -> None:
    planned = bench(*MEMORY, "--plan", "--benchmark-compare")
    assert planned.returncode == 0, planned.stdout
    [line] = [line for line in planned.stdout.splitlines() if line.startswith("NEW: ")]
    assert line.count("-tiny-sim planned]") == 2
    assert bench(*MEMORY, "--benchmark-compare").returncode == 0
