"""Peaks of the strategies on simulated CUDA: the notebook's own figures, and theory to the byte."""

from dataclasses import replace
from typing import Any

import pytest

from bench.conftest import Measure
from bench.measure.bounds import peak_breaches
from bench.measure.case import Case
from bench.measure.expected import blank_record
from bench.measure.leaks import leaks
from bench.measure.peak_fields import peaks
from bench.measure.terms import Terms, host_slack_bytes
from bench.meters import device_meter
from bench.meters.device import DevicePeaks
from bench.strategies import STRATEGIES
from bench.strategies.reading.memory import HUGE_PAGE_BYTES

GIB = 2**30


def planned(strategy: str, size: str, device: str = "sim") -> Case:
    return Case(strategy, size, device, "float32", planned=True)


# A third of a terabyte takes seconds to plan: one recipe will do, and no sizes between.
@pytest.mark.parametrize(
    ("strategy", "size"),
    [*((name, size) for name in STRATEGIES for size in ("small", "xl")), ("load_assign", "gpt3")],
)
def test_a_planned_load_takes_what_theory_says_to_the_byte(load: Measure, strategy: str, size: str) -> None:
    measurement, footprint = load(planned(strategy, size)), planned(strategy, size).specification.footprint
    state, largest = footprint.state_bytes, footprint.largest_tensor_bytes
    row, terms = STRATEGIES[strategy], Terms(state_bytes=state, largest_tensor_bytes=largest)
    assert measurement.device.requested_bytes == terms.bound_bytes(row.bounds.device)
    assert measurement.host.private_bytes == terms.bound_bytes(row.bounds.host)
    assert measurement.host.file_bytes == terms.bound_bytes(row.bounds.beside_device)
    assert measurement.device.pinned_bytes == terms.bound_bytes(row.bounds.pinned)
    record = blank_record(planned(strategy, size)).with_fields(peaks(measurement, state))
    assert peak_breaches(row, record) == {}
    assert leaks(measurement.kept, record) == []
    assert measurement.minor_faults is None


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_so_does_one_to_the_cpu(load: Measure, strategy: str) -> None:
    """There is one pool: the model and its checkpoint share the host's memory."""
    measurement, footprint = load(planned(strategy, "small", "cpu")), planned(strategy, "small").specification.footprint
    terms = Terms(state_bytes=footprint.state_bytes, largest_tensor_bytes=footprint.largest_tensor_bytes)
    expected = terms.bound_bytes(STRATEGIES[strategy].bounds.cpu)
    assert expected <= (measurement.host.private_bytes or 0) <= expected + asked_beside(strategy, "cpu")
    assert measurement.device.requested_bytes is None


def asked_beside(strategy: str, device: str) -> int:
    """Return the bytes that are asked for and never touched: blocks of huge pages start in the first of one more."""
    blocks = 6  # Of small, in one file or three.
    return blocks * HUGE_PAGE_BYTES if (strategy, device) == ("streamed", "cpu") else 0


def test_a_cpus_peaks_do_not_depend_on_a_gpus_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "backend:cudaMallocAsync")
    for meter in (device_meter("cpu", planned=True), device_meter("cpu", explained=True), device_meter("cpu")):
        assert meter.peaks() == DevicePeaks()
    with pytest.raises(ValueError, match="simulated CUDA does not model"):
        device_meter("sim")


# `torch.cuda.max_memory_allocated` of GPT-2 xl as the notebook that started this suite prints it, in GiB.
NOTEBOOK = {"baseline": 12.8, "sequential": 6.7, "meta_sequential": 12.8, "mmap_assign": 6.4, "per_tensor": 6.4}


@pytest.mark.parametrize("strategy", NOTEBOOK)
def test_the_notebooks_figures_come_out(load: Measure, strategy: str) -> None:
    allocated = load(planned(strategy, "xl")).device.allocated_bytes
    assert allocated is not None
    assert round(allocated / GIB, 1) == NOTEBOOK[strategy]


def test_before_its_first_copy_sequential_has_the_model_alone(load: Measure) -> None:
    """The notebook prints 6.4 for the model, and 6.7 with one tensor beside it."""
    alive = load(planned("sequential", "xl")).alive["device_allocated_peak_bytes"]
    assert [(held.tensors, held.line) for held in alive] == [(821, "sequential.py:8"), (1, "sequential.py:15")]
    assert round(alive[0].bytes / GIB, 1) == 6.4
    assert "build_on(build, device, dtype)" in alive[0].code


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_plan_and_a_real_load_agree(load: Measure, strategy: str) -> None:
    """To the byte on the device, allocator and all; on the host a real process has more than tensors."""
    plan = load(planned(strategy, "tiny"))
    real = load(Case(strategy, "tiny", "sim", "float32"))
    assert plan.device == real.device
    assert {figure: alive for figure, alive in plan.alive.items() if "device" in figure} == {
        figure: alive for figure, alive in real.alive.items() if "device" in figure
    }
    footprint = planned(strategy, "tiny").specification.footprint
    slack = host_slack_bytes(footprint.state_bytes, footprint.tensors)
    assert real.host.private_bytes == pytest.approx(plan.host.private_bytes, abs=slack)
    assert real.host.file_bytes == pytest.approx(plan.host.file_bytes, abs=slack)


in_shards = pytest.mark.parametrize("strategy", [name for name, row in STRATEGIES.items() if row.extra_layouts])


@pytest.mark.parametrize("device", ["sim", "cpu"])
@pytest.mark.parametrize("layout", ["torch_sharded", "safetensors_sharded"])
@in_shards
def test_shards_take_what_one_file_takes(load: Measure, strategy: str, layout: str, device: str) -> None:
    if (strategy, layout) == ("mmap_assign", "safetensors_sharded"):
        pytest.skip("a plan maps what torch.load maps, and nothing else")
    case = planned(strategy, "small", device)
    one, shards = load(case), load(case, layout=layout)
    assert shards.device == one.device
    assert shards.host.private_bytes == pytest.approx(one.host.private_bytes, abs=asked_beside(strategy, device))
    # What is moved to a device is unmapped file by file: of those before it no page is held.
    record = blank_record(case)
    record.largest_file_bytes = replace(case.specification, layout=layout).largest_file_bytes
    assert record.largest_file_bytes < record.state_bytes
    expression = case.strategy.bounds.of_peaks(on_host=device == "cpu")["host_file_peak_bytes"]
    assert shards.host.file_bytes == Terms.of(record).peak_bound("host_file_peak_bytes", expression)


@in_shards
def test_so_do_safetensors_that_are_read(load: Measure, strategy: str) -> None:
    case = Case(strategy, "tiny", "sim", "float32")
    assert load(case, layout="safetensors_sharded").device == load(case).device


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_was_alive_adds_up_to_every_peak(load: Measure, strategy: str) -> None:
    measurement = load(planned(strategy, "small"))
    record: dict[str, Any] = peaks(measurement, 1)
    assert measurement.alive.keys() == {
        *("device_requested_peak_bytes", "device_allocated_peak_bytes", "device_reserved_peak_bytes"),
        *("host_private_peak_bytes", "host_file_peak_bytes"),
    }
    for figure, alive in measurement.alive.items():
        assert sum(held.bytes for held in alive) == record[figure], figure
        if figure != "device_reserved_peak_bytes":
            assert {held.line.partition(":")[0] for held in alive} <= {f"{strategy}.py"}
