"""Runs with loaders of other projects, as users start them."""

import json
import os
import re
from pathlib import Path

import pytest

from bench.cases.conftest import Bench, last_record

# A plugin that adds loaders of other projects: one that dies, one that hangs, one that raises, one that is not there.
FAULTY = """
import ctypes, time
from bench.cases import case
from bench.strategies import PEERS, Strategy
from bench.strategies.named import NamedLoad
from bench.strategies.peers import Peer
from model.reference import Reference

case.LIMIT_SECONDS = 8.0
case.LIMIT_BYTES_PER_SECOND = float("inf")
for name in ("dies", "hangs", "raises", "absent"):
    needs = "no-such-loader" if name == "absent" else "torch"
    peer = Peer("dcp", needs, "real module", "load", "torch")
    load = NamedLoad(Reference(f"{FOLDER}/loaders.py:{name}"))
    PEERS[name] = Strategy(load, "torch", "", "", "", "", pinned="", peer=peer)
"""

LOADERS = """
import ctypes, time

def dies(build, path, device):
    ctypes.string_at(0)

def hangs(build, path, device):
    time.sleep(60)

def raises(build, path, device):
    raise SystemExit("no licence")
"""

if not Path("/proc/self/clear_refs").exists():
    pytest.skip("needs Linux's /proc", allow_module_level=True)


def test_a_loader_that_raises_hangs_or_dies_takes_down_its_own_row_only(bench: Bench, folder: Path) -> None:
    (folder / "loaders.py").write_text(LOADERS)
    strategies = "dies,hangs,raises,absent,dcp,instanttensor"
    plugin = f"FOLDER = {str(folder)!r}\n{FAULTY}"
    run = bench(
        *("--sizes", "tiny", "--strategies", strategies, "--device", "cpu", "-k", "peak_memory"),
        plugin=plugin,
    )
    assert run.returncode == 1, run.stdout + run.stderr
    rows = dict(re.findall(r"^(\w+) +tiny +.* (\w+)$", run.stdout, re.MULTILINE))
    failed = dict.fromkeys(("dies", "hangs", "raises"), "FAILED")
    assert rows == failed | {"absent": "skipped", "dcp": "ok", "instanttensor": "skipped"}
    for line in (
        "dies-tiny: the process of the load died: killed by SIGSEGV, a segmentation fault",
        "hangs-tiny: the load was ended: it was not done within 8 s",
        "raises-tiny: SystemExit: no licence",
        "absent-tiny: skipped: no-such-loader is not installed: pip install '.[peers]'",
        "instanttensor-tiny: skipped: ",
    ):
        assert line in run.stdout
    torch = re.search(r"^dcp: torch (\S+); load\(no_dist=True\); into: real module$", run.stdout, re.MULTILINE)
    assert torch
    # What could be measured is recorded, and what could not is there with the reason.
    recorded = last_record(folder)
    assert {one["extra_info"]["strategy"] for one in recorded["benchmarks"]} == {"dcp"}
    [memory] = [one["extra_info"] for one in recorded["benchmarks"] if "peak_memory[dcp" in one["name"]]
    assert memory["peer"]["versions"] == {"torch": torch[1]}
    assert memory["layout"] == "dcp"
    assert 0 <= memory["retained_bytes"] < memory["state_bytes"]
    assert memory["retained_again_bytes"] is not None
    assert {one["strategy"] for one in recorded["problems"]} == {"dies", "hangs", "raises", "absent", "instanttensor"}
    assert os.fspath(folder) not in json.dumps(recorded)


def test_the_conformance_of_another_projects_loader_is_no_failure_where_it_is_known(bench: Bench) -> None:
    run = bench(
        *("--sizes", "tiny", "--strategies", "dcp", "--device", "cpu", "-k", "equivalence", "--conformance"),
        "--benchmark-disable",
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "dcp, surplus: WRONG: was loaded without an error" in run.stdout
    [example] = re.findall(r"dcp, surplus: WRONG.*\n +(.*)", run.stdout)
    assert example.endswith("has one beside it that the model has not")
