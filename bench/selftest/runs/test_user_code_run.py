"""Runs of a project that has names of the suite's own, warns, ends processes, and does not answer the same twice."""

from pathlib import Path

import pytest

from bench.conftest import Bench

MODEL = """
import warnings
import torch
from torch import nn
from torch.nn import functional as F

class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(512, 64)
        self.register_buffer("passes", torch.zeros(1))

    def forward(self, ids):
        warnings.warn("the slow path")
        self.passes += 1
        dropped = F.dropout(self.embed(ids), training=True) + self.passes
        return dropped.masked_fill(torch.arange(64) > 60, float("-inf")) / torch.arange(64)
"""
TRAIN = """
import argparse, warnings
import torch

arguments = argparse.ArgumentParser()
arguments.add_argument("--epochs", default=1)
arguments = arguments.parse_args()

def net():
    from model import GPT
    warnings.warn("an old layer", FutureWarning)
    return GPT()

def example():
    return torch.tensor([[1, 2, 3]])

def misfit():
    return {"words": 3}

def usual(build, path, device):
    warnings.warn("an old loader")
    model = build()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.to(device)

def unlike(build, path, device):
    model = usual(build, path, device)
    model.passes += 1
    return model
"""
# Whatever else is installed beside the suite may warn too.
PLUGIN = """
import warnings

def pytest_configure(config):
    warnings.warn("a plugin")

def pytest_sessionfinish(session):
    warnings.warn("a plugin")

"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "model.py").write_text(MODEL)
    (folder / "train.py").write_text(TRAIN)
    return folder / "train.py"


def test_a_project_of_the_users_is_measured_as_it_is(bench: Bench, file: Path) -> None:
    run = bench(
        *("--model", f"{file}:net", "--example-input", f"{file}:example", "--strategies", "mmap_assign"),
        *("--loader", f"{file}:usual", "--loader", f"{file}:unlike"),
        *("-k", "peak_memory or load_time or own_equivalence"),
        plugin=PLUGIN,
    )
    lines = run.stdout.splitlines()
    table = {line.split()[0]: line.split()[-1] for line in lines if " net " in line}
    expected = {"mmap_assign": "ok", "usual": "ok", "unlike": "FAILED"}
    assert {name: table.get(name) for name in expected} == expected, run.stdout + run.stderr
    # What its forward pass changes is what was loaded all the same.
    assert "unlike-net: passes differs in 1 of 1 values, first at flat index 0: 1.0, saved as 0.0" in lines
    assert [line for line in lines if " warns: " in line or "random numbers" in line] == [
        "net: draws random numbers in its forward pass, so its outputs are compared on the CPU alone",
        "train.py:net warns: FutureWarning: an old layer (train.py:11)",
        "train.py:net warns: UserWarning: the slow path (model.py:14)",
        "train.py:usual warns: UserWarning: an old loader (train.py:21)",
        "train.py:unlike warns: UserWarning: an old loader (train.py:21)",
    ]


def test_an_example_that_does_not_fit_ends_the_run_before_anything_is_measured(bench: Bench, file: Path) -> None:
    run = bench("--model", f"{file}:net", "--example-input", f"{file}:misfit", "-k", "peak_memory")
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    said = (
        "ERROR: --example-input: train.py:misfit does not fit train.py:net: TypeError: GPT.forward() got an unexpected "
    )
    assert [line.startswith(said) for line in run.stderr.splitlines() if line] == [True], run.stdout + run.stderr
