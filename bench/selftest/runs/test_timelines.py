"""Timelines of measured loads: their maxima are the peaks, for every strategy and device."""

import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.conftest import Measure
from bench.measure.case import Case
from bench.measure.jobs import load_job
from bench.measure.peak_fields import peaks
from bench.meters.allocations import AllocationEvent
from bench.meters.child import load_noting
from bench.meters.phase_times import PhaseTimes
from bench.meters.simulated.ledger import Ledger
from bench.meters.simulated.simulation import simulation
from bench.meters.timeline import MOMENTS, MOST_POINTS
from bench.strategies import STRATEGIES
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.making import make
from model.gpt2 import REHEARSAL

FIGURES = {
    "device_requested_bytes": "device_requested_peak_bytes",
    "host_private_bytes": "host_private_peak_bytes",
    "host_file_bytes": "host_file_peak_bytes",
    "host_pinned_bytes": "host_pinned_peak_bytes",
}

every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


def record_of(load: Measure, case: Case) -> dict[str, Any]:
    """Return the record as it is read back from a file."""
    return json.loads(json.dumps(peaks(load(case), case.specification.footprint.state_bytes)))


@pytest.mark.parametrize("planned", [False, True])
@pytest.mark.parametrize("device", ["sim", "cpu"])
@every_strategy
def test_the_most_of_every_series_is_its_peak(load: Measure, strategy: str, device: str, planned: bool) -> None:
    record = record_of(load, Case(strategy, "tiny", device, "float32", planned=planned))
    timeline = record["timeline"]
    for name, figure in FIGURES.items():
        assert (timeline[name] is None) == (record[figure] is None), name
        if timeline[name]:
            seconds, counts = timeline[name]["seconds"], timeline[name]["bytes"]
            assert max(counts) == record[figure], name
            assert (seconds[0], counts[0], min(counts)) == (0, 0, 0)
            assert seconds == sorted(seconds)
            assert len(seconds) == len(counts) <= MOST_POINTS


@pytest.mark.parametrize("planned", [False, True])
@pytest.mark.parametrize("device", ["sim", "cpu"])
@every_strategy
def test_a_load_has_its_moments_in_their_order(load: Measure, strategy: str, device: str, planned: bool) -> None:
    timeline = record_of(load, Case(strategy, "tiny", device, "float32", planned=planned))["timeline"]
    moments = timeline["moments"]
    absent = {"load"} if strategy == "streamed" else set()
    absent |= {"first_logits"} if planned or device == "sim" else set()
    assert list(moments) == [name for name in MOMENTS if name not in absent]
    assert list(moments.values()) == sorted(moments.values())
    if on_device := timeline["device_requested_bytes"]:
        assert on_device["seconds"][-1] == moments["copy"]
    if on_host := timeline["host_private_bytes"]:
        assert on_host["seconds"][-1] >= max(moments.values())


@pytest.mark.parametrize("planned", [False, True])
def test_the_baselines_second_copy_comes_with_its_state_dict(load: Measure, planned: bool) -> None:
    record = record_of(load, Case("baseline", "tiny", "sim", "float32", planned=planned))
    moments, on_device = record["timeline"]["moments"], record["timeline"]["device_requested_bytes"]
    steps = list(zip(on_device["seconds"], on_device["bytes"], strict=True))
    state = Case("baseline", "tiny", "sim", "float32").specification.footprint.state_bytes
    assert min(at for at, count in steps if count) >= moments["build"]
    assert state in on_device["bytes"]
    assert max(at for at, count in steps if count == 2 * state) <= moments["copy"]
    assert min(at for at, count in steps if count == 2 * state) <= moments["load"]
    assert steps[-1][1] == state


@pytest.mark.parametrize("planned", [False, True])
@every_strategy
def test_to_note_moments_changes_nothing_that_is_counted(tmp_path: Path, strategy: str, planned: bool) -> None:
    case = Case(strategy, REHEARSAL, "sim", "float32", planned=planned)
    make(case.specification, tmp_path / "made", lambda _: None)
    checkpoint = Checkpoint(case.specification, tmp_path / "made")
    job = load_job(case, case.strategy.load, checkpoint, checkpoint)
    plain = partial(job.load, torch.device("cuda"), lambda build: build)
    noting = partial(load_noting, job, torch.device("cuda"), PhaseTimes())
    torch_load = torch.load
    assert events(case, plain) == events(case, noting) != Counter()
    assert torch.load is torch_load


def events(case: Case, load: Any) -> Counter[AllocationEvent]:
    """But for their times and their order: what threads ask for comes as it does."""
    ledger = Ledger(case.strategy.source)
    with simulation(ledger, planned=case.planned):
        load()
        ledger.restart()
        load()
        return Counter(event._replace(storage=0, seconds=0.0) for event in ledger.events)
