"""Runs with so much memory and no more."""

import importlib.util
from pathlib import Path
from typing import Any

from bench.conftest import Bench, last_record
from bench.meters.budget import empty_process_bytes
from bench.selftest.documents.markdown import documented_options
from bench.strategies import STRATEGIES

MIB = 2**20


def records(folder: Path, test: str) -> dict[str, dict[str, Any]]:
    found = last_record(folder)["benchmarks"]
    return {one["extra_info"]["strategy"]: one["extra_info"] for one in found if one["name"].startswith(test)}


def test_who_lives_and_who_dies_is_in_the_table_and_the_best_of_those_who_live_is_advised(
    bench: Bench, folder: Path, with_cgroups: None
) -> None:
    host = empty_process_bytes(60.0) + 28 * MIB
    budgets = ("--device-memory", "60MiB", "--host-memory", str(host))
    command = "pytest bench --device-memory 24GiB --host-memory 8GiB"
    run = bench(*documented_options(command), *budgets, "-k", "test_budget or peak_memory")
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
    assert tried["meta_sequential"]["fate"].startswith("out of device memory at 50 MiB of 60 MiB, 14.00 MiB more asked")
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
