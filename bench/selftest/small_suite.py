"""The suite in small: runs of pytest whose figures are written in a file, so that nothing but the gate varies."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.record.record import Record

# The suite in small: benchmarks that measure what `figures.json` says, on the machine that it says.
CONFTEST = """
import json
from pathlib import Path

import pytest

from bench.plugin.option import add_options
from bench.plugin.options import OPTIONS, parsed
from bench.plugin.regression import RegressionPlugin, comparison_request
from bench.report.comparison_section import comparison_lines, comparison_markdown, comparison_title, quiet_line

WORLD = json.loads(Path(__file__).with_name("figures.json").read_text())


def pytest_addoption(parser):
    add_options(parser, OPTIONS)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    config.addinivalue_line("markers", "slow: as the suite has markers of its own")
    config.option.benchmark_autosave = config.option.benchmark_autosave or "run"
    config.option.benchmark_storage = f"file://{config.rootpath / 'results'}"
    try:
        request = comparison_request(parsed(config.option), config.option)
        config.gate = RegressionPlugin(config, request, lambda record: record.size == "tiny")
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    config.pluginmanager.register(config.gate)


def pytest_benchmark_generate_machine_info():
    return WORLD["machine"]


def pytest_benchmark_generate_commit_info():
    return {"id": "c0ffee", "time": None, "dirty": False}


def pytest_terminal_summary(terminalreporter, config):
    gate = config.gate
    if gate.requested_comparison:
        terminalreporter.section(comparison_title(gate.requested_comparison))
        for line in comparison_lines(gate.requested_comparison, gate.recorded, 120):
            terminalreporter.write_line(line)
        Path("summary.md").write_text(comparison_markdown(gate.requested_comparison, gate.recorded))
    elif gate.comparison and (line := quiet_line(gate.comparison)):
        terminalreporter.write_line(line)
    for line in gate.complaints:
        terminalreporter.write_line(f"ERROR: {line}")
"""

BENCHMARKS = """
import os
import signal
import time

import pytest

from bench.plugin.regression import MemoryRegression
from bench.record.record import Record
from conftest import WORLD


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLD["loads"])
def test_load(name, benchmark, find_regressions):
    benchmark.extra_info = fields = WORLD["loads"][name]
    record = Record.read(fields)
    if name in WORLD.get("stopped", ()):
        benchmark.pedantic(lambda: os.kill(os.getpid(), signal.SIGINT))
    benchmark.pedantic(time.sleep, args=(0,), rounds=2)
    if grown := find_regressions(record):
        alive = [dict(bytes=7, tensors=1, line="r.py:3", code="x = y")]
        fields["alive_at_peak"] = record.alive_at_peak = dict.fromkeys(grown, alive)
        raise MemoryRegression("; ".join(grown.values()), pytrace=False)
    assert name not in WORLD.get("broken", ())
    if name in WORLD.get("interrupted", ()):
        raise KeyboardInterrupt
"""

MACHINE = {"torch": "2.13.0", "release": "6.1", "memory_bytes": 24 * 10**9}

FIELDS = ("min", "max", "mean", "stddev", "median", "iqr", "ops", "rounds", "iterations")
STATS: dict[str, Any] = dict.fromkeys(FIELDS, 1.0) | {"outliers": "0;0"}

# name of a load -> fields of its record
Loads = dict[str, dict[str, Any]]


def load(**fields: Any) -> dict[str, Any]:
    """The record of a load that takes 1 GB and 200 ms, but for what is said."""
    usual = {
        "strategy": "streamed",
        "size": "tiny",
        "dtype": "float32",
        "cache": "warm",
        "device": "cpu",
        "planned": False,
        "bytes_per_second": 5e9,
        "state_bytes": 10**9,
        "device_requested_peak_bytes": 10**9,
        "host_private_peak_bytes": 10**9,
        "load_seconds": 0.2,
        "first_logits_seconds": 0.25,
    }
    return Record().as_json() | usual | fields


class Suite:
    """Runs of the small suite in a folder of their own, one after the other."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester
        pytester.makeconftest(CONFTEST)
        pytester.makepyfile(test_loads=BENCHMARKS)

    def __call__(self, loads: Loads, *options: str, machine: dict[str, Any] = MACHINE, **world: Any) -> Any:
        self.write(loads, machine=machine, **world)
        usual = ("-p", "no:cacheprovider", "--benchmark-group-by=func")
        return self._pytester.runpytest_inprocess(*usual, *options, no_reraise_ctrlc=True)

    def write(self, loads: Loads, *, machine: dict[str, Any] = MACHINE, **world: Any) -> None:
        text = json.dumps({"loads": loads, "machine": machine, **world})
        (self._pytester.path / "figures.json").write_text(text)

    @property
    def files(self) -> list[Path]:
        return sorted((self._pytester.path / "results").rglob("*.json"), key=lambda file: file.name[-14:])

    @property
    def names(self) -> list[str]:
        return sorted(file.stem for file in self.files)

    def history(self, name: str) -> dict[str, Any]:
        [file] = [file for file in self.files if file.stem == name]
        return json.loads(file.read_text())["history"]

    def record(self, count: int, loads: Callable[[int], Loads], machine: dict[str, Any] = MACHINE) -> None:
        """Write `count` runs as the suite would have recorded them."""
        folder = self._pytester.path / "results" / "Machine"
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(1, count + 1):
            benchmarks = [
                {"fullname": f"test_loads.py::test_load[{name}]", "extra_info": record, "stats": STATS}
                for name, record in loads(number).items()
            ]
            run = {"machine_info": machine, "commit_info": {"id": "c0ffee"}, "datetime": f"{number:04}"}
            (folder / f"{number:04}_run.json").write_text(json.dumps({"benchmarks": benchmarks, **run}))


def lines(result: Any, beginning: str) -> list[str]:
    return [line for line in result.outlines if line.startswith(beginning)]
