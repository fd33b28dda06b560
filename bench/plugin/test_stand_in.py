"""The option `--stand-in`: what it refuses, and a run that it starts once more on a stand-in for a GPU."""

from pathlib import Path
from typing import Any

import pytest

from bench.conftest import Bench, last_record
from bench.meters.driver.build import CannotBuild, require_parts
from bench.meters.driver.card import CardSettings
from bench.plugin.options import parsed
from bench.plugin.test_options import given
from bench.selftest.documents.markdown import documented_options

GIB = 2**30


def options(stand_in: str, device: str = "auto", *, plan: bool = False) -> dict[str, Any]:
    return {"stand_in": stand_in, "device": device, "plan": plan}


@pytest.mark.parametrize(
    ("chosen", "memory_bytes"),
    [
        (options("80GiB"), (80 * GIB,)),
        (options("80GiB", "cuda"), (80 * GIB,)),
        (options("24GB, 2GiB", "cuda:1"), (24 * 10**9, 2 * GIB)),
    ],
)
def test_every_amount_is_a_device(chosen: dict[str, Any], memory_bytes: tuple[int, ...]) -> None:
    assert parsed(given(**chosen)).stand_in == CardSettings(memory_bytes, late=True)


def test_without_a_compiler_or_a_cuda_build_a_line_says_so(bench: Bench) -> None:
    run = bench("--stand-in", "4GiB", env={"PATH": ""})
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    [line] = run.stderr.strip().splitlines()
    assert line.startswith("ERROR: the stand-in for a GPU ")
    assert "cc" in line or "needs a CUDA build of torch" in line


def test_a_run_goes_on_on_the_stand_in_and_says_so(bench: Bench, folder: Path) -> None:
    try:
        require_parts()
    except CannotBuild as error:
        pytest.skip(str(error))
    command = documented_options("pytest bench --device cuda --stand-in 8GiB")
    run = bench(
        *command, "-k", "(peak_memory or load_time) and (sequential or streamed) and not meta", env={"COLUMNS": "80"}
    )
    assert run.returncode == pytest.ExitCode.OK, run.stdout + run.stderr
    assert "weight loading: float32 to cuda (stand-in 8 GiB), page cache warm" in run.stdout
    rows = [line.split() for line in run.stdout.splitlines() if line.startswith(("sequential ", "streamed "))]
    assert [(row[0], row[2], row[3], row[-1]) for row in rows] == [
        ("sequential", "1.37x", "1.37x", "ok"),
        ("streamed", "1.00x", "1.00x", "ok"),
    ]
    run_record = last_record(folder)
    assert run_record["machine_info"]["gpus"] == ["stand-in for a GPU"]
    assert {one["extra_info"]["stand_in"] for one in run_record["benchmarks"]} == {"8 GiB"}
    assert {one["extra_info"].get("load_seconds") for one in run_record["benchmarks"]} == {None}
