"""Runs of the suite by many processes, as users start them."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.conftest import LIMIT_SECONDS, ROOT, WITHOUT_ALTAIR, environment_of, recorded
from bench.selftest.documents.markdown import documented
from bench.sharded.measure_ranks import measure_ranks
from bench.sharded.rank_group import local_group
from bench.sharded.rank_jobs import rank_jobs
from bench.sharded.rank_peaks import of_all_ranks
from bench.sharded.rendezvous import RankRendezvous
from bench.sharded.sharded_case import ShardedCase
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.specification import Specification

# A plugin that has rank 1 die in the middle of a load, and every process write down what its tests ended with.
DYING = """
import os
from dataclasses import replace
from pathlib import Path

from bench.selftest.runs.test_rank_faults import dying
from bench.sharded.recipes import SHARDED

SHARDED["dying"] = replace(SHARDED["streamed"], load=dying)


def pytest_runtest_logreport(report):
    if report.failed:
        Path(os.environ["TOLD"], os.environ["RANK"]).write_text(report.longreprtext)
"""

TORCHRUN = "torchrun --standalone --nproc-per-node 2 -m pytest bench --sharded"


def torchrun(folder: Path) -> "subprocess.CompletedProcess[str]":
    """The tests of peaks and of times on tiny, with a strategy that loads, and one in which rank 1 dies."""
    for name in ("checkpoints", "told"):
        (folder / name).mkdir()
    environment = environment_of(folder, DYING + WITHOUT_ALTAIR) | {"TOLD": str(folder / "told"), "COLUMNS": "80"}
    torchrun, *arguments = documented(TORCHRUN)
    assert torchrun == "torchrun"
    where = ("--checkpoint-dir", str(folder / "checkpoints"), "--benchmark-storage", str(folder / "results"))
    which = ("--sizes", "tiny", "--parallelism", "fsdp", "--strategies", "streamed,dying", "-k", "not equivalence")
    plugins = ("-p", "injected", "-p", "no:cacheprovider")
    command = (sys.executable, "-m", "torch.distributed.run", *arguments, *where, *which, *plugins)
    return subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False)


def records(folder: Path) -> list[dict[str, Any]]:
    return [bench["extra_info"] for bench in json.loads(recorded(folder)[-1].read_text())["benchmarks"]]


@pytest.mark.ranks
def test_two_processes_load_as_one_run_record_it_once_and_end_together_where_one_dies(
    tmp_path: Path, real_checkpoint: Callable[[Specification], Checkpoint]
) -> None:
    many = torchrun(tmp_path)
    assert many.returncode != 0
    # One of them speaks, and writes.
    assert many.stdout.count("test session starts") == 1
    assert re.search(r"\nstreamed .*fsdp.* ok\n", many.stdout), many.stdout + many.stderr
    assert len(recorded(tmp_path)) == 1
    of_many, timed = records(tmp_path)
    assert (of_many["ranks"], of_many["parallelism"], of_many["strategy"]) == (2, "fsdp", "streamed")
    assert timed["strategy"] == "streamed"
    assert [rank["rank"] for rank in of_many["per_rank"]] == [0, 1]
    case = ShardedCase("streamed", "tiny", "sim", "float32", group=local_group(2))
    rendezvous = RankRendezvous(case.group)
    jobs = rank_jobs(case, rendezvous, real_checkpoint(case.specification), real_checkpoint(case.rehearsal))
    of_one = of_all_ranks(case, measure_ranks(rendezvous, jobs, LIMIT_SECONDS)) | {"state_bytes": case.state_bytes}
    exact = ("device_requested_peak_bytes", "host_pinned_peak_bytes", "share_bytes")
    assert [[rank[name] for name in exact] for rank in of_many["per_rank"]] == [
        [rank[name] for name in exact] for rank in of_one["per_rank"]
    ]
    # Everything once, and little beside it.
    for record in (of_one, of_many):
        assert record["state_bytes"] <= record["read_bytes"] <= 1.02 * record["state_bytes"]
    assert len(timed["per_rank"]) == 2
    assert timed["load_seconds"] > 0
    assert timed["first_logits_seconds"] > timed["load_seconds"]
    assert str(ROOT) not in recorded(tmp_path)[-1].read_text()
    # Where a rank dies, each of them says which one.
    told = {(tmp_path / "told" / rank).read_text().strip() for rank in ("0", "1")}
    assert told == {
        "rank 1 of 2: the process of the load died: killed by SIGKILL, most likely by the kernel, out of memory"
    }
    assert "2 failed" in many.stdout
