"""Runs with so much memory and no more."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from bench.cases.conftest import Bench, last_record
from bench.meters.budget import empty_process_bytes
from bench.meters.cgroup import NoCgroup, limited
from bench.meters.process import child_process
from bench.strategies import STRATEGIES

MIB = 2**20
S = 34_782_720


@pytest.fixture(scope="module")
def empty() -> int:
    """What a process holds that has loaded nothing; without cgroups the tests of this module are skipped."""
    count = empty_process_bytes(60.0)
    with child_process(_wait, None, 60.0) as child:
        try:
            with limited(2**30, child.pid):
                child.end()
        except NoCgroup as error:
            pytest.skip(str(error))
    return count


def _wait(connection: Any, _: object) -> None:
    connection.recv()


def files(folder: Path) -> list[Path]:
    """But for what Python keeps of the modules that a run imports."""
    return sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts)


def records(folder: Path, test: str) -> dict[str, dict[str, Any]]:
    found = last_record(folder)["benchmarks"]
    return {one["extra_info"]["strategy"]: one["extra_info"] for one in found if one["name"].startswith(test)}


def test_who_lives_and_who_dies_is_in_the_table_and_the_best_of_those_who_live_is_advised(
    bench: Bench, folder: Path, empty: int
) -> None:
    host = empty + 28 * MIB
    budgets = ("--device-memory", "60MiB", "--host-memory", str(host))
    run = bench(*budgets, "-k", "test_budget or peak_memory")
    assert run.returncode == 0, run.stdout + run.stderr
    tried = records(folder, "test_budget")
    assert {name: record["fits"] for name, record in tried.items()} == {
        "baseline": False,
        "sequential": False,
        "meta_sequential": False,
        "load_assign": True,
        "mmap_assign": True,
        "per_tensor": True,
        "streamed": False,
    }
    for record in tried.values():
        assert (record["device_budget_bytes"], record["host_budget_bytes"]) == (60 * MIB, host)
        assert (record["fate"] is None) == record["fits"]
    assert tried["meta_sequential"]["fate"].startswith("out of device memory at 50 MiB of 60 MiB, 12.27 MiB more asked")
    assert tried["baseline"]["fate"].startswith("killed at ")
    lines = run.stdout.splitlines()
    [row] = [line for line in lines if line.startswith("baseline  ")]
    assert row.split()[2] == "dies"
    assert row.endswith("  ok")
    assert f"baseline-tiny: {tried['baseline']['fate']}" in lines
    advice = next(line for line in lines if line.startswith("Use "))
    # Nothing is timed here: it takes least.
    assert advice.startswith("Use mmap_assign for tiny: it fits, taking ")
    assert "baseline, sequential, meta_sequential, streamed do not fit." in lines
    assert last_record(folder)["advice"][0] == advice
    spec = importlib.util.spec_from_file_location("pasted", folder / "results" / "report" / "load_mmap_assign.py")
    assert spec
    assert spec.loader
    spec.loader.exec_module(pasted := importlib.util.module_from_spec(spec))
    assert pasted.mmap_assign.__doc__ == STRATEGIES["mmap_assign"].load.__doc__


def test_where_no_strategy_fits_the_run_fails_and_says_what_would(bench: Bench, folder: Path) -> None:
    run = bench("--device-memory", "30MiB", "--strategies", "load_assign,mmap_assign", "-k", "test_budget")
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout + run.stderr
    assert "ERROR: no strategy loads the model with the memory that it was given" in run.stdout
    assert "  bfloat16: mmap_assign takes 42 MiB of the device and 0 MiB of the host, which does not fit" in run.stdout


def test_the_smallest_budgets_are_found(bench: Bench, folder: Path, empty: int) -> None:
    run = bench("--find-minimum", "--strategies", "sequential", "-k", "smallest or peak_memory")
    assert run.returncode == 0, run.stdout + run.stderr
    [found], [peak] = (list(records(folder, test).values()) for test in ("test_smallest", "test_peak_memory"))
    assert found["smallest_tolerance_bytes"] == 2 * MIB
    reserved = peak["device_reserved_peak_bytes"]
    assert reserved <= found["smallest_device_bytes"] < reserved + 2 * MIB
    assert empty + S - 12 * MIB < found["smallest_host_bytes"] < empty + S + 16 * MIB
    assert f"{found['smallest_device_bytes'] / MIB:.1f} MiB" in run.stdout


def test_a_budget_below_an_empty_process_is_a_usage_error(bench: Bench, folder: Path) -> None:
    before = files(folder)
    run = bench("--host-memory", "100MiB")
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    [error] = [line for line in run.stderr.splitlines() if line]
    assert error.startswith("ERROR: --host-memory: 100 MiB are no more than the ")
    assert error.endswith(" MiB of a process that has loaded nothing; write an amount above that")
    assert files(folder) == before


FORGETS = """
from bench.meters import budget

def forget(self, limits):
    return budget.Fate({lived}, "mended", limits.host_bytes - {room})

budget.Trial.under = forget
"""


@pytest.mark.parametrize(
    ("lived", "said"),
    [
        (True, "it lived, where by its bounds it takes more: a bound, or the limit, is wrong"),
        (False, "by its bounds it has to live: mended"),
    ],
)
def test_a_limit_that_does_not_limit_is_found(bench: Bench, lived: bool, said: str) -> None:
    run = bench("-k", "short_memory and (baseline or mmap_assign)", plugin=FORGETS.format(lived=lived, room=S // 2))
    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    assert said in run.stdout
    assert "1 failed, 1 passed" in run.stdout
