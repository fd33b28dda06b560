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
    assert row.endswith("  too big")
    assert f"baseline-tiny: {tried['baseline']['fate']}" in lines
    # Nothing is timed here: it takes least.
    advice = last_record(folder)["advice"]
    assert advice[0].startswith("Use mmap_assign for tiny on one device. It takes ")
    shown = " ".join(run.stdout.split())
    # Where the code lies is said in the terminal alone.
    [code] = [line for line in advice if line.startswith("Its code")]
    assert all(" ".join(line.split()) in shown for line in advice if line != code)
    assert advice[0].endswith("baseline, sequential, meta_sequential, streamed do not fit.")
    assert " stay free for activations. " in advice[0]
    assert (
        f"    pytest bench --sizes tiny --strategies mmap_assign --device-memory 60MiB --host-memory {host}" in advice
    )
    spec = importlib.util.spec_from_file_location("pasted", folder / "results" / "report" / "load_mmap_assign.py")
    assert spec
    assert spec.loader
    spec.loader.exec_module(pasted := importlib.util.module_from_spec(spec))
    assert pasted.mmap_assign.__doc__ == STRATEGIES["mmap_assign"].load.__doc__


def test_planned_ranks_fit_their_devices_and_nodes_or_die(bench: Bench, folder: Path) -> None:
    """Of two ranks of tiny each takes segments of 42 MiB to stream its share, and 70 MiB to load all and divide it."""
    of_nodes = (
        "pytest bench --sharded --plan --sizes xl --ranks 2,8 --ranks-per-node 8 --device-memory 4GiB "
        "--host-memory 16GiB"
    )
    budgets = ("--ranks-per-node", "4", "--device-memory", "44MiB", "--host-memory", "2TiB")
    options = ("--strategies", "load_then_shard,streamed", "--parallelism", "fsdp")
    run = bench(*documented_options(of_nodes), "--sizes", "tiny", *options, *budgets)
    assert run.returncode == 0, run.stdout + run.stderr
    found = [one["extra_info"] for one in last_record(folder)["benchmarks"] if "budget" in one["name"]]
    assert {(one["strategy"], one["ranks"]): one["fits"] for one in found} == {
        ("load_then_shard", 2): False,
        ("streamed", 2): True,
        ("load_then_shard", 8): False,
        ("streamed", 8): True,
    }
    assert {one["ranks_per_node"] for one in found} == {2, 4}
    assert {(one["device_budget_bytes"], one["host_budget_bytes"]) for one in found} == {(44 * MIB, 2**41)}
    assert [one["fate"] for one in found if not one["fits"]] == [
        f"out of device memory: rank 0 needs {taken} MiB, and has 44 MiB" for taken in (70, 50)
    ]
    advice = last_record(folder)["advice"]
    assert advice[0].startswith("Use streamed for tiny on 2 devices, divided by fsdp. It takes ")
    assert "    return fully_shard(model, mesh=mesh)" in [line.removeprefix("    ") for line in advice]
    assert (folder / "results" / "report" / "load_streamed.py").is_file()


def test_where_no_planned_rank_fits_the_run_fails_and_says_what_would(bench: Bench, folder: Path) -> None:
    run = bench("--sharded", "--plan", "--ranks", "2", "--strategies", "streamed", "--device-memory", "24MiB")
    assert run.returncode == 1, run.stdout + run.stderr
    assert "ERROR: no strategy fits in the given memory" in run.stdout
    assert "more devices: each of 4 takes 14.3 MiB, which fits" in run.stdout
    checks = "pytest bench --sharded --plan --ranks 4 --parallelism fsdp --sizes tiny --device-memory 24MiB"
    assert f"    {checks}" in run.stdout.splitlines()
