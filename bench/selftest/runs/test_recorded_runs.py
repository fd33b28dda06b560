"""Agreement of the simulation with every run on a GPU that `results/` holds."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.conftest import Measure
from bench.history.deviation import deviations
from bench.measure.case import Case
from bench.measure.peak_fields import peaks
from bench.meters.allocator_settings import allocator_settings
from bench.record.record import Record
from bench.strategies import STRATEGIES

RESULTS = Path(__file__).parents[3] / "results"


def recorded_on_cuda(folder: Path) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Every recorded load by a strategy, of a GPT-2, whose memory a GPU was measured at: name, machine, record."""
    found = []
    for path in sorted(folder.rglob("*.json")):
        run = json.loads(path.read_text())
        for benchmark in run["benchmarks"]:
            record = benchmark["extra_info"]
            # What is the user's cannot be loaded again from a record, nor what a library of its own loads.
            ours = record["strategy"] in STRATEGIES and not record.get("model") and not record.get("ranks")
            if ours and record["device"].startswith("cuda") and record["device_requested_peak_bytes"] is not None:
                found.append((f"{path.name[:4]}-{benchmark['param']}", run["machine_info"], record))
    return found


def deviations_of(load: Measure, machine: dict[str, Any], record: dict[str, Any]) -> list[str]:
    return deviations(Record.read(record), simulated(load, machine, record), machine["torch"])


def simulated(load: Measure, machine: dict[str, Any], record: dict[str, Any]) -> Record:
    case = Case(record["strategy"], record["size"], "sim", record["dtype"], planned=True)
    measurement = load(case, allocator_settings(machine["allocator_settings"]))
    return Record.read(peaks(measurement, record["state_bytes"]))


@pytest.mark.parametrize(
    ("machine", "record"),
    [pytest.param(machine, record, id=name) for name, machine, record in recorded_on_cuda(RESULTS)],
)
def test_the_simulation_agrees_with_every_gpu_that_was_recorded(
    load: Measure, machine: dict[str, Any], record: dict[str, Any]
) -> None:
    assert deviations_of(load, machine, record) == []
    if record.get("stand_in"):
        # Its allocator is PyTorch's, and it has no other memory of a device.
        figures = [name for name in record if name.startswith("device_") and name.endswith("_peak_bytes")]
        figures.remove("device_driver_peak_bytes")
        assert len(figures) == 3
        expected = simulated(load, machine, record)
        assert {name: record[name] for name in figures} == {name: expected.value(name) for name in figures}


def run_on(device: str, figures: dict[str, Any]) -> dict[str, Any]:
    record = {"strategy": "sequential", "size": "tiny", "dtype": "float32", "device": device, "state_bytes": 34_782_720}
    return {
        "machine_info": {"torch": "2.11.0", "allocator_settings": "roundup_power2_divisions:1"},
        "benchmarks": [{"param": f"sequential-tiny-{device}", "extra_info": record | figures}],
    }


def test_a_recorded_run_is_found_and_held_against_the_simulation(load: Measure, tmp_path: Path) -> None:
    case = Case("sequential", "tiny", "sim", "float32", planned=True)
    agreeing = peaks(load(case, allocator_settings("roundup_power2_divisions:1")), 34_782_720)
    deviating = agreeing | {"device_requested_peak_bytes": agreeing["device_requested_peak_bytes"] + 1}
    timed = dict.fromkeys(agreeing)
    theirs = deviating | {"model": "mine.py:make", "size": "make"}
    loads = [
        *[("cuda", agreeing), ("cuda:0", deviating), ("cuda", timed), ("cpu", timed), ("sim", deviating)],
        *[("cuda", theirs), ("cuda", deviating | {"strategy": "mine"}), ("cuda", deviating | {"ranks": 2})],
    ]
    for number, (device, figures) in enumerate(loads):
        (tmp_path / f"{number:04}_run.json").write_text(json.dumps(run_on(device, figures)))
    found = recorded_on_cuda(tmp_path)
    assert [name for name, _, _ in found] == ["0000-sequential-tiny-cuda", "0001-sequential-tiny-cuda:0"]
    [agreed, deviated] = [deviations_of(load, machine, record) for _, machine, record in found]
    assert agreed == []
    assert len(deviated) == 1
    assert deviated[0].startswith(
        "sequential-tiny: device_requested_peak_bytes is 47,648,512 simulated, and 47,648,513"
    )
