"""Runs of a model, a checkpoint and loaders that are not the suite's."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.cases.conftest import Bench, last_record
from model.layouts import LAYOUTS, save_plain
from model.reference import Reference

CODE = """
import torch
from torch import nn

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(2000, 512)
        self.layer = nn.Linear(512, 512)
        self.head = nn.Linear(512, 2000, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        return self.head(self.layer(self.embed(ids)))

class Rotary(Tied):
    def __init__(self):
        super().__init__()
        self.register_buffer("angles", torch.ones(512, 100), persistent=False)

def tied():
    # What is made beside the model while it is built.
    spare = torch.ones(8_000_000)
    return Tied()

def rotary():
    return Rotary()

def example():
    return torch.tensor([[1, 2]])

def theirs(build, path, device):
    model = build()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.to(device)

def greedy(build, path, device):
    beside = torch.empty(1000, device=device)
    return theirs(build, path, device)

def wrong(build, path, device):
    model = theirs(build, path, device)
    with torch.no_grad():
        model.layer.bias[0] += 1
    return model
"""


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    """The user's code, with a training checkpoint beside it."""
    file = folder / "mine.py"
    file.write_text(CODE)
    torch.manual_seed(3)
    state_dict = Reference(f"{file}:tied").get()().state_dict()
    training = {"model": {f"module.{name}": tensor for name, tensor in state_dict.items()}, "step": 7}
    torch.save(training, folder / "training.pt")
    torch.save(state_dict, folder / "weights.pt")
    return file


STATE = 4 * (2000 * 512 + 512 * 512 + 512)
LARGEST = 4 * 2000 * 512


def files(folder: Path) -> list[Path]:
    """But for what Python keeps of the modules that a run imports."""
    return sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts)


def records(folder: Path, test: str) -> dict[str, dict[str, Any]]:
    found = last_record(folder)["benchmarks"]
    return {one["extra_info"]["strategy"]: one["extra_info"] for one in found if one["name"].startswith(test)}


def test_a_strangers_model_is_measured_as_gpt2_is(bench: Bench, folder: Path, file: Path) -> None:
    run = bench(
        *("--model", f"{file}:tied", "--checkpoint", str(folder / "training.pt"), "--state-key", "model"),
        *("--example", f"{file}:example", "--strategy", f"{file}:theirs", "--bound", "S"),
        *("--strategies", "baseline,mmap_assign,streamed,per_tensor", "-k", "peak_memory or load_time"),
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "tied: of training.pt, its 'model' saved as a checkpoint of its own, without 'module.' before" in run.stdout
    names = {"baseline", "mmap_assign", "streamed", "per_tensor", "theirs"}
    memory, times = records(folder, "test_peak_memory"), records(folder, "test_load_time")
    assert memory.keys() == times.keys() == names
    for record in (*memory.values(), *times.values()):
        assert (record["model"], record["size"], record["dtype"]) == ("mine.py:tied", "tied", "float32")
        assert (record["state_bytes"], record["largest_tensor_bytes"]) == (STATE, LARGEST)
        assert record["first_use"] == "logits"
    requested = {name: record["device_requested_peak_bytes"] for name, record in memory.items()}
    assert requested == dict.fromkeys(names, STATE) | {"baseline": 2 * STATE}
    # The factory makes 32 MB beside its model, and a weight that it ties then; who builds it is charged for that.
    assert memory["baseline"]["build_peak_bytes"] == pytest.approx(STATE + LARGEST + 32e6, abs=1e6)
    assert memory["baseline"]["host_bound_ratio"] == memory["baseline"]["build_peak_bytes"] / STATE
    assert {record["layout"] for record in memory.values()} == {"torch", "per_tensor"}
    assert memory["theirs"]["host_bound_ratio"] is None
    assert all(record["first_logits_seconds"] > 0 for record in times.values())
    assert str(folder) not in json.dumps(last_record(folder))


def test_a_loader_of_the_users_is_held_to_what_the_user_says_and_to_the_weights(
    bench: Bench, folder: Path, file: Path
) -> None:
    run = bench(
        *("--model", f"{file}:tied", "--checkpoint", str(folder / "weights.pt"), "--device", "cpu"),
        *("--strategy", f"{file}:wrong", "--strategy", f"{file}:theirs", "--strategy", f"{file}:greedy"),
        *("--bound", "3S", "--bound", "12.5S", "--bound", "0"),
        *("--strategies", "mmap_assign", "-k", "peak_memory or equivalence-values or equivalence-plain"),
    )
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout + run.stderr
    assert "tied: S = 5,146,624 bytes of state, L = 4,096,000 bytes in its largest tensor; without an exa" in run.stdout
    table = {line.split()[0]: line.split()[-1] for line in run.stdout.splitlines() if line[:6].strip()}
    assert [table[name] for name in ("mmap_assign", "wrong", "theirs", "greedy")] == ["ok", "FAILED", "ok", "FAILED"]
    problems = {one["strategy"]: one["verdict"] for one in last_record(folder)["problems"]}
    assert (
        problems["wrong"]
        == "WrongModel: layer.bias differs in 1 of 512 values, first at flat index 0: "
        + (problems["wrong"].partition("index 0: ")[2])
    )
    assert "above its bound 0 = 0.00x (0.0 MB)" in problems["greedy"]
    conformance = {(cell["strategy"], cell["property"]) for cell in last_record(folder)["conformance"]}
    assert {strategy for strategy, _ in conformance} <= {"wrong", "theirs", "greedy"}


def test_what_no_checkpoint_has_counts_or_is_refused_by_name(bench: Bench, folder: Path, file: Path) -> None:
    weights = ("--model", f"{file}:rotary", "--checkpoint", str(folder / "weights.pt"))
    run = bench(*weights, "--strategies", "sequential,mmap_assign", "-k", "peak_memory or load_time")
    assert run.returncode == 0, run.stdout + run.stderr
    [record] = records(folder, "test_peak_memory").values()
    assert record["beside_bytes"] == 512 * 100 * 4
    assert record["device_requested_peak_bytes"] == STATE + LARGEST + record["beside_bytes"]
    lines = [line for line in run.stdout.splitlines() if line.startswith("mmap_assign")]
    assert lines[0].endswith("refused")
    assert lines[1].startswith("mmap_assign-rotary: refused: ['angles'] are not persistent")
    assert [one["verdict"].partition(":")[0] for one in last_record(folder)["problems"]] == ["refused"] * 2


def test_a_plan_of_a_strangers_model_takes_what_theory_says(bench: Bench, folder: Path, file: Path) -> None:
    LAYOUTS["safetensors"].save(Reference(f"{file}:tied").get()().state_dict(), folder, save_plain)
    run = bench(
        *("--model", f"{file}:tied", "--checkpoint", str(folder / "model.safetensors"), "--plan"),
        *("--strategies", "sequential,load_assign,mmap_assign", "--strategy", f"{file}:theirs"),
    )
    assert run.returncode == 0, run.stdout + run.stderr
    memory = records(folder, "test_peak_memory")
    assert memory["sequential"]["device_requested_peak_bytes"] == STATE + LARGEST
    assert memory["sequential"]["host_private_peak_bytes"] == memory["sequential"]["build_peak_bytes"]
    assert memory["load_assign"]["host_private_peak_bytes"] == LARGEST
    assert memory["mmap_assign"]["host_private_peak_bytes"] == 0
    assert memory["theirs"]["host_private_peak_bytes"] >= 2 * STATE


def test_a_strangers_checkpoint_that_does_not_fit_is_a_usage_error(bench: Bench, folder: Path, file: Path) -> None:
    before = files(folder)
    run = bench("--model", f"{file}:tied", "--checkpoint", str(folder / "training.pt"))
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    [error] = [line for line in run.stderr.splitlines() if line]
    assert error == (
        f"ERROR: --checkpoint: {folder}/training.pt holds more than the state dict of the model: add --state-key model"
    )
    assert files(folder) == before
