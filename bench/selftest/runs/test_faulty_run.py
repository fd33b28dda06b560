"""A run with faulty loaders, and loaders of other projects that are faulty or not installed."""

import json
import os
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.conftest import Bench, last_record

# A plugin that adds recipes with faults, and loaders of other projects: one that dies, one that hangs, one that raises,
# and one that is not installed.
FAULTY = """
from bench.measure import case
from bench.selftest.meter_faults import load_and_be_killed, load_and_look, load_with_stray_copy, load_wrong
from bench.strategies import PEERS, STRATEGIES, Strategy
from bench.strategies.lazy_recipe import LazyRecipe
from bench.strategies.peers import Peer
from bench.strategies.strategy import Bounds
from model.user.reference import Reference

case.TIMEOUT_SECONDS = 8.0
case.TENSORS_PER_SECOND = 1e9
case.READ_BYTES_PER_SECOND = float("inf")
for strategy in (
    Strategy(load_with_stray_copy, "torch", Bounds("S", "0", "0", "S", "0")),
    Strategy(load_wrong, "per_tensor", Bounds("S", "L", "S + L", "0", "0")),
    Strategy(load_and_look, "torch", Bounds("S", "0", "0", "S", "0")),
    Strategy(load_and_be_killed, "torch", Bounds("S", "0", "0", "S", "0")),
):
    STRATEGIES[strategy.name] = strategy
for name, fault, needs in (
    ("dies", "load_and_crash", "torch"),
    ("hangs", "load_and_hang", "torch"),
    ("raises", "load_and_give_up", "torch"),
    ("absent", "load_and_crash", "no-such-loader"),
):
    peer = Peer("dcp", needs, "real module", "load", "torch")
    load = LazyRecipe(Reference(f"bench.selftest.meter_faults:{fault}"))
    PEERS[name] = Strategy(load, "torch", Bounds(), peer=peer)
"""

if not Path("/proc/self/clear_refs").exists():
    pytest.skip("needs Linux's /proc", allow_module_level=True)


@pytest.fixture(scope="module")
def faulty_run(bench: Bench) -> "subprocess.CompletedProcess[str]":
    """Every kind of faulty loader in one run: memory on the simulated device, times on the CPU."""
    recipes = "load_with_stray_copy,load_wrong,load_and_look,load_and_be_killed,per_tensor"
    peers = "dies,hangs,raises,absent,dcp,instanttensor"
    return bench("--strategies", f"{recipes},{peers}", "-k", "peak_memory or load_time", plugin=FAULTY, page=True)


FAILED = ("load_with_stray_copy", "load_wrong", "load_and_look", "load_and_be_killed", "dies", "hangs", "raises")
SKIPPED = ("absent", "instanttensor")


def test_a_faulty_load_fails_in_its_own_row_only(faulty_run: "subprocess.CompletedProcess[str]") -> None:
    assert faulty_run.returncode == 1, faulty_run.stdout + faulty_run.stderr
    verdicts = dict(re.findall(r"^(\w+) +tiny +.* (\w+)$", faulty_run.stdout, re.MULTILINE))
    assert verdicts == {
        **dict.fromkeys(FAILED, "FAILED"),
        **dict.fromkeys(SKIPPED, "skipped"),
        **dict.fromkeys(("per_tensor", "dcp"), "ok"),
    }


def test_a_failure_says_what_was_wrong(faulty_run: "subprocess.CompletedProcess[str]") -> None:
    for line in (
        "load_with_stray_copy-tiny: device requested peak is 2.00x",
        "load_wrong-tiny: WrongModel: trf_blocks.0.att.mask differs in 1 of",
        # Neither a measured load nor a timed one takes the run with it.
        "load_and_be_killed-tiny: the process of the load died: killed by SIGKILL",
        "dies-tiny: the process of the load died: killed by SIGSEGV, a segmentation fault",
        "hangs-tiny: the load was ended: it was not done within 8 s",
        "raises-tiny: SystemExit: no licence",
        "absent-tiny: skipped: no-such-loader is not installed: pip install '.[peers]'",
        "instanttensor-tiny: skipped: ",
    ):
        assert line in faulty_run.stdout
    # On a simulated device a failure names the line of the recipe.
    assert re.search(
        r"33\.17 MiB in 39 tensors: \w*meter_faults\.py:\d+ model\.stray = \[tensor\.clone\(\)", faulty_run.stdout
    )
    assert re.search(
        r"load_and_look-tiny: NotSimulated: \w*meter_faults\.py:\d+ reads values from the device "
        r"\(torch\.Tensor\.item\), and a simulated one has none; use --device cpu or cuda",
        faulty_run.stdout,
    )
    assert (
        faulty_run.stdout.count("FAILED bench/test_load_time.py::test_load_time[load_and_be_killed-tiny-cpu] - ") == 1
    )
    # Nothing of the processes that ended stands between pytest's dots.
    dots = faulty_run.stdout.partition(" selected\n")[2].partition("= FAILURES =")[0].splitlines()[:-1]
    usual = r"(bench/\S+ )?[.Fs]+ +\[ *\d+%\]|measuring .*"
    assert [line for line in dots if line and not re.fullmatch(usual, line)] == []


def test_what_failed_is_recorded_as_a_problem_and_not_as_a_benchmark(
    faulty_run: "subprocess.CompletedProcess[str]", folder: Path
) -> None:
    last = last_record(folder)
    benchmarks = {benchmark["name"]: benchmark["extra_info"] for benchmark in last["benchmarks"]}
    timed = ("load_with_stray_copy", "load_and_look", "per_tensor", "dcp")
    assert benchmarks.keys() == {
        *(f"test_load_time[{name}-tiny-cpu]" for name in timed),
        *(f"test_peak_memory[{name}-tiny-sim]" for name in ("load_wrong", "per_tensor", "dcp")),
    }
    problems = {problem["strategy"]: problem for problem in last["problems"]}
    assert problems.keys() == {*FAILED, *SKIPPED}
    assert problems["load_with_stray_copy"]["record"]["timeline"]["host_private_bytes"]["seconds"]
    torch = re.search(r"^dcp: torch (\S+); load\(no_dist=True\); into: real module$", faulty_run.stdout, re.MULTILINE)
    assert torch
    dcp = benchmarks["test_peak_memory[dcp-tiny-sim]"]
    assert (dcp["peer"]["versions"], dcp["layout"]) == ({"torch": torch[1]}, "dcp")
    assert os.fspath(folder) not in json.dumps(last)
    if find_spec("altair"):
        page = (folder / "results" / "report" / "index.html").read_text()
        assert re.search(r"7 of \d+ loads failed: load_with_stray_copy-tiny, ", page)
        assert "load_with_stray_copy-tiny: FAILED" in page
