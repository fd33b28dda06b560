"""Tests of the meters by fault: each fault changes the figure that it should, and fails the check that it should."""

import multiprocessing
import re
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench.measure.bounds import peak_breaches
from bench.measure.case import Case
from bench.measure.expected import blank_record
from bench.measure.jobs import load_job
from bench.measure.leaks import leaks
from bench.measure.peak_fields import peaks
from bench.meters import measure as measure_module
from bench.meters.device import DeviceMeter
from bench.meters.host import HostMemory
from bench.meters.measure import Measurement, measure, sample_load
from bench.meters.process import Child, LoadDied, LoadFailed
from bench.meters.sampling import MemorySample
from bench.record.record import Record
from bench.selftest.meter_faults import (
    KNOWN_BYTES,
    Driven,
    keep_known_bytes,
    load_and_be_killed,
    load_and_crash,
    load_and_exit,
    load_and_hang,
    load_and_keep,
    load_and_keep_owned,
    load_and_map_and_read,
    load_and_map_for_a_while,
    load_and_map_untouched,
    load_and_raise,
    load_and_read_beside_known_bytes,
    load_and_take,
    load_beside_known_bytes,
    load_with_stray_copy,
    load_wrong,
    only_when_measured,
)
from bench.strategies import STRATEGIES, Load
from bench.strategies.mmap_assign import mmap_assign
from bench.strategies.per_tensor import per_tensor
from model.checkpoints.cache import CheckpointCache

MIB = 2**20
NOISE = 2 * MIB

# What most faults are injected into: by itself it takes no private memory, so theirs stands out.
CASE = Case("mmap_assign", "tiny", "cpu", "float32")
STATE = CASE.specification.footprint.state_bytes

Run = Callable[..., Measurement]

if not Path("/proc/self/clear_refs").exists():
    pytest.skip("needs Linux's /proc", allow_module_level=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Measures a load of the tiny checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def run_one(load: Load, case: Case = CASE, limit_seconds: float = 60.0, **job: Any) -> Measurement:
        with closing(CheckpointCache(folder, print)) as cache:
            checkpoint, rehearsal = cache.get(case.specification), cache.get(case.rehearsal)
            load = partial(only_when_measured, load, case.strategy.load)
            return measure(replace(load_job(case, load, checkpoint, rehearsal), **job), limit_seconds)

    return run_one


def record_of(measurement: Measurement, case: Case = CASE) -> Record:
    return blank_record(case).with_fields(peaks(measurement, STATE))


def problems_of(measurement: Measurement, case: Case = CASE) -> list[str]:
    record = record_of(measurement, case)
    return [*peak_breaches(case.strategy, record).values(), *leaks(measurement.kept, record)]


@pytest.fixture(scope="module")
def healthy(run: Run) -> Measurement:
    return run(mmap_assign)


def test_a_healthy_load_has_no_problems(healthy: Measurement) -> None:
    assert problems_of(healthy) == []
    assert healthy.host.file_bytes == pytest.approx(STATE, abs=NOISE)
    assert healthy.host.private_bytes == pytest.approx(0, abs=NOISE)


def test_a_load_that_was_hardly_seen_is_measured_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mapping that ends between two samples would pass for private memory."""
    case = Case("mmap_assign", "tiny", "sim", "float32")
    looks = late_at_first(monkeypatch, 1)
    measurement = run(load_and_map_for_a_while, case)
    assert len(looks) > 1
    assert problems_of(measurement, case) == []
    assert peak_over_time(measurement) == measurement.host.private_bytes


@pytest.mark.parametrize(
    ("peak", "unseen", "tries"),
    [(48 * MIB, 4 * MIB, 1), (48 * MIB, 5 * MIB, 2), (4 * MIB, MIB, 1), (4 * MIB, 3 * MIB, 2), (0, 0, 1)],
)
def test_a_load_is_measured_again_if_much_of_its_peak_was_unseen(
    healthy: Measurement, peak: int, unseen: int, tries: int
) -> None:
    def seen(unseen: int) -> list[Measurement]:
        return [replace(healthy, host=HostMemory(0, peak - unseen, 0, peak))]

    looks = list[bool]()

    def look(closely: bool) -> list[Measurement]:
        looks.append(closely)
        return seen(0 if closely else unseen)

    [measurement] = measure_module.best_of(look)
    assert looks == [False, True][:tries]
    assert measurement.host.private_bytes == (unseen if tries == 1 else 0)


def test_what_is_never_seen_counts_as_private(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = late_at_first(monkeypatch, 99)
    measurement = run(load_and_read_beside_known_bytes)
    assert len(looks) == measure_module.TRIES
    assert measurement.host.private_bytes == pytest.approx(KNOWN_BYTES, abs=NOISE)
    assert re.search("above its bound 0", problems_of(measurement)[0])
    assert peak_over_time(measurement) == measurement.host.private_bytes


def peak_over_time(measurement: Measurement) -> int:
    """Return the peak of private memory over time."""
    assert measurement.timeline.host_private_bytes
    return max(measurement.timeline.host_private_bytes.bytes)


def late_at_first(monkeypatch: pytest.MonkeyPatch, blind: int) -> list[None]:
    """Have the first `blind` loads end before their memory is sampled; return a list with an entry for each load."""
    loads = list[None]()

    def sample_late(
        child: Child, level: HostMemory, meter: DeviceMeter, deadline: float, *, closely: bool
    ) -> tuple[list[MemorySample], int]:
        loads.append(None)
        if len(loads) <= blind:
            child.connection.poll(deadline - time.monotonic())
            return [MemorySample(time.monotonic(), level)], 0
        return sample_load(child, level, meter, deadline, closely=closely)

    monkeypatch.setattr(measure_module, "sample_load", sample_late)
    return loads


@pytest.mark.parametrize(
    ("load", "private", "file", "problem"),
    [
        (load_with_stray_copy, STATE, 0, r"host private peak is 1\.0.x .* above its bound 0"),
        (load_beside_known_bytes, KNOWN_BYTES, 0, r"host private peak is 1\.4.x .* above its bound 0"),
        (load_and_map_and_read, 0, KNOWN_BYTES, r"host file peak is 2\.4.x .* above its bound S"),
        (load_and_map_untouched, 0, 0, None),
        (
            load_and_keep,
            0,
            0,
            r"leak: 3\d\.\d MB of file-backed host memory are still allocated after the " r"model was deleted",
        ),
    ],
)
def test_a_fault_changes_its_figure_and_fails_its_gate(
    run: Run, healthy: Measurement, load: Load, private: int, file: int, problem: str | None
) -> None:
    measurement = run(load)
    for name, expected in (("private_bytes", private), ("file_bytes", file)):
        change = getattr(measurement.host, name) - getattr(healthy.host, name)
        assert change == pytest.approx(expected, abs=NOISE), name
    problems = problems_of(measurement)
    assert len(problems) == (problem is not None), problems
    assert problem is None or re.match(problem, problems[0])


def test_a_load_that_keeps_what_it_owns_is_told_of(run: Run) -> None:
    case = Case("per_tensor", "tiny", "cpu", "float32")
    [problem] = problems_of(run(load_and_keep_owned, case), case)
    assert re.match(r"leak: 3\d\.\d MB of private host memory are still allocated after the model was deleted", problem)


def test_what_a_load_keeps_beside_the_model_is_told_after_each_load(run: Run) -> None:
    owned = Case("per_tensor", "tiny", "cpu", "float32")
    assert run(per_tensor, owned, again=True).kept.retained == pytest.approx((0, 0), abs=NOISE)
    assert run(per_tensor, owned).kept.retained == pytest.approx((0,), abs=NOISE)
    # What is mapped is no part of what is held.
    assert run(mmap_assign, again=True).kept.retained == pytest.approx((0, 0), abs=NOISE)
    assert run(partial(keep_known_bytes, mmap_assign)).kept.retained == pytest.approx((KNOWN_BYTES,), abs=NOISE)
    keeping = run(partial(keep_known_bytes, per_tensor), owned, again=True)
    kept = keeping.kept
    assert kept.retained == pytest.approx((KNOWN_BYTES, 2 * KNOWN_BYTES), abs=NOISE)
    # The first load alone is what the test of leaks is about.
    assert kept.host.private_bytes == pytest.approx(KNOWN_BYTES, abs=NOISE)
    assert peaks(keeping, STATE)["retained_again_bytes"] > KNOWN_BYTES


def test_what_the_driver_of_a_device_tells_is_watched_from_outside(run: Run, tmp_path: Path) -> None:
    (tmp_path / "used").write_text("1000")
    taken = run(partial(load_and_take, tmp_path / "used"), meter=partial(Driven, tmp_path / "used"))
    assert taken.driver_bytes == KNOWN_BYTES
    assert peaks(taken, STATE)["device_driver_peak_bytes"] == KNOWN_BYTES
    assert run(mmap_assign).driver_bytes is None


def test_a_load_that_takes_less_than_its_bound_fails_too(healthy: Measurement) -> None:
    """A mapped load that says it is the baseline shows what a meter would that misses private memory."""
    private, file = peak_breaches(STRATEGIES["baseline"], record_of(healthy)).values()
    assert "below its bound 2S" in private
    assert "above its bound 0" in file


def test_wrong_weights_are_an_error_that_names_them(run: Run) -> None:
    with pytest.raises(LoadFailed, match=r"^WrongModel: trf_blocks.0.att.mask differs in 1 of 1,048,576 values"):
        run(load_wrong, Case("per_tensor", "tiny", "cpu", "float32"))


def test_an_error_is_told_with_its_words_and_where_it_was(run: Run) -> None:
    with pytest.raises(LoadFailed, match=r"^KeyError: 'trf_blocks.7'") as caught:
        run(load_and_raise)
    assert 'raise KeyError("trf_blocks.7")' in "".join(caught.value.__notes__)


@pytest.mark.parametrize(
    ("load", "manner"),
    [
        (load_and_be_killed, "killed by SIGKILL, most likely by the kernel, out of memory"),
        (load_and_crash, "killed by SIGSEGV, a segmentation fault"),
        (load_and_exit, "it exited with status 3"),
    ],
)
def test_a_process_that_dies_says_how(run: Run, load: Load, manner: str) -> None:
    with pytest.raises(LoadDied, match=rf"^the process of the load died: {manner}$"):
        run(load)


def test_a_load_that_hangs_is_ended(run: Run) -> None:
    with pytest.raises(LoadDied, match=r"^the load was ended: it was not done within 2 s$"):
        run(load_and_hang, limit_seconds=2.0)


def test_no_process_is_left_behind(run: Run) -> None:
    with pytest.raises(LoadDied):
        run(load_and_hang, limit_seconds=1.0)
    assert multiprocessing.active_children() == []
