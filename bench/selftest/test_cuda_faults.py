"""The suite finds each fault that is put into its CUDA path; without a fault it finds nothing.

A fault is put in where the function runs: in the process of a load, or in this one.
"""

import os
import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.conformance.blueprint import Blueprint, PlaceName, Stored
from bench.measure.bounds import peak_breaches
from bench.measure.case import Case
from bench.measure.expected import blank_record
from bench.measure.jobs import clock_of, load_job
from bench.measure.leaks import leaks
from bench.measure.peak_fields import peaks
from bench.meters import device_meter, test_cuda_path
from bench.meters.budget import Budget
from bench.meters.clock import LoadClock, remote_clock
from bench.meters.cuda import CudaMeter
from bench.meters.driver.variables import CARD
from bench.meters.measure import measure
from bench.meters.process import LoadEnded
from bench.selftest.cuda_faults import FAULTS, CudaFault, copying, with_fault
from model.checkpoints.cache import CheckpointCache
from model.gpt2 import REHEARSAL

pytestmark = [
    pytest.mark.skipif(CARD not in os.environ, reason="a GPU may be done in time for a fault: runs on the stand-in"),
    *test_cuda_path.pytestmark,
]

LAST = test_cuda_path.LAST
LIMIT_SECONDS = 60.0
README = Path(__file__).parents[1] / "meters" / "driver" / "README.md"
MIB = 2**20


@dataclass(frozen=True)
class Bench:
    """Tools of a check: a folder for checkpoints, and pytest's way to put a fault into this process."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch

    def loads(self, case: Case) -> tuple[Any, Any]:
        """Return the checkpoints of a case and of its rehearsal."""
        with closing(CheckpointCache(self.folder, print)) as cache:
            return cache.get(case.specification), cache.get(case.rehearsal)


# Returns what it found; "": nothing.
Check = Callable[[Bench, CudaFault | None], str]


def peak_of(strategy: str, device: str = "cuda") -> Check:
    """Return the check of a load's weights, of its peaks, and of what it leaves."""
    case = Case(strategy, REHEARSAL, device, "float32")

    def check(bench: Bench, fault: CudaFault | None) -> str:
        job = load_job(case, case.strategy.load, *bench.loads(case))
        try:
            measurement = measure(replace(job, meter=partial(with_fault, fault, job.meter)), LIMIT_SECONDS)
        except LoadEnded as error:
            return str(error)
        record = blank_record(case).with_fields(peaks(measurement, case.specification.footprint.state_bytes))
        return "\n".join([*peak_breaches(case.strategy, record).values(), *leaks(measurement.kept, record)])

    return check


def time_of(strategy: str, device: str = "cuda") -> Check:
    """Return the check of timed loads."""
    case = Case(strategy, REHEARSAL, device, "float32")

    def check(bench: Bench, fault: CudaFault | None) -> str:
        make: Callable[[], LoadClock] = clock_of(case, case.strategy.load, *bench.loads(case))
        try:
            with remote_clock(partial(with_fault, fault, make), LIMIT_SECONDS) as clock:
                for _ in range(2):
                    clock.begin_round()
                    clock.load_and_use()
                clock.finish_round()
        except LoadEnded as error:
            return str(error)
        return ""

    return check


def equivalence_of(strategy: str) -> Check:
    """Return the check that a small model is loaded as it was saved."""
    specimen = Blueprint((Stored(shape=(100,)), Stored()), (PlaceName("one"), PlaceName("other", 1)))

    def check(bench: Bench, fault: CudaFault | None) -> str:
        if fault:
            bench.monkeypatch.setattr(fault.function, "__code__", fault.code)
        return test_cuda_path.judged(strategy, specimen).why

    return check


def budget_of_the_device(_: Bench, fault: CudaFault | None) -> str:
    """Check that a load fits into what it takes of the device, and into no less."""
    trial = test_cuda_path.budget_trial(partial(with_fault, fault, partial(device_meter, "cuda")))
    if told := trial.under(Budget(device_bytes=24 * MIB)).failure_reason:
        return told
    return "fits into less than it takes" if trial.under(Budget(device_bytes=24 * MIB - 1)).fits else ""


def by_test(test: Callable[..., object], *arguments: object, meter: bool = True, files: bool = False) -> Check:
    """Return a test of the CUDA path as a check; `meter`: it is given that of the last device, `files`: a folder."""

    def check(bench: Bench, fault: CudaFault | None) -> str:
        if fault:
            bench.monkeypatch.setattr(fault.function, "__code__", fault.code)
        of_last = CudaMeter(LAST)
        of_last.start()
        try:
            test(*([of_last] if meter else []), *arguments, *([bench.folder] if files else []))
        except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - whatever a fault leads to
            return str(error) or type(error).__name__
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, 0)
            of_last.limit(None)
        return ""

    return check


LOADS: dict[str, Check] = {
    "peak of streamed": peak_of("streamed"),
    "peak of streamed to cuda:1": peak_of("streamed", "cuda:1"),
    "peak of per_tensor": peak_of("per_tensor"),
    "peak of per_tensor to cuda:1": peak_of("per_tensor", "cuda:1"),
    "peak of load_assign": peak_of("load_assign"),
    "time of streamed": time_of("streamed"),
    "equivalence of streamed": equivalence_of("streamed"),
    "budget": budget_of_the_device,
}

# Those pass without a fault in `test_cuda_path.py`.
TESTS: dict[str, Check] = {
    "test: memory of a copy": by_test(
        test_cuda_path.test_a_load_comes_after_what_is_asked_of_its_memory, meter=False, files=True
    ),
    "test: page-locked memory left": by_test(test_cuda_path.test_a_stream_leaves_no_page_locked_memory, meter=False),
    "test: start": by_test(test_cuda_path.test_what_was_there_before_the_start_does_not_count),
    "test: page-locked memory": by_test(test_cuda_path.test_page_locked_memory_counts_even_if_some_was_cached),
    "test: history": by_test(test_cuda_path.test_a_history_is_that_of_the_device),
    "test: driver": by_test(test_cuda_path.test_what_another_allocator_takes_is_taken),
    "test: limit": by_test(test_cuda_path.test_a_limit_is_exact_whether_the_device_has_an_index_or_not, 20 * MIB),
    "test: limit beyond what is held": by_test(test_cuda_path.test_a_limit_is_beyond_what_is_held),
    "test: first logits": by_test(test_cuda_path.test_a_clock_finds_no_model_kept_that_has_answered),
    "test: clock": by_test(test_cuda_path.test_a_clock_stops_when_the_device_is_done),
    "test: pinned limit": by_test(
        test_cuda_path.test_the_limit_of_page_locked_memory_is_taken_when_all_is_copied, files=True
    ),
}


@pytest.fixture
def bench(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path_factory.getbasetemp(), monkeypatch)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(name: str, bench: Bench) -> None:
    fault, check, told = FAULTS[name]
    assert re.search(re.escape(told).replace("…", ".*"), (LOADS | TESTS)[check](bench, fault))


@pytest.mark.parametrize("name", LOADS)
def test_without_a_fault_nothing_is_found(name: str, bench: Bench) -> None:
    assert LOADS[name](bench, None) == ""


def test_memory_that_is_kept_for_its_stream_is_right(bench: Bench) -> None:
    told = LOADS["peak of per_tensor"](bench, copying("copy_beside(tensor, saved, recorded=True)"))
    # It is more than such a load may take.
    assert re.match("device requested peak is .* above its bound S", told)


def test_the_list_of_faults_is_what_is_tested() -> None:
    rows = README.read_text().partition("## Faults it finds")[2].partition("\n## ")[0].splitlines()
    stated = [f"| {name} | {check} | `{told}` |" for name, (_, check, told) in FAULTS.items()]
    assert [row for row in rows if row.startswith("| ")][1:] == stated
