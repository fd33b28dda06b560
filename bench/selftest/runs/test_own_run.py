"""Runs of a model, a checkpoint and loaders that are not the suite's."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.conftest import Bench, Measure, last_record
from bench.measure.case import Case
from bench.measure.expected import building
from bench.meters.measure import Measurement
from bench.selftest.checked_load import checked
from bench.strategies import STRATEGIES, Strategy
from bench.strategies.user_strategy import user_strategy
from model.layouts.files import save_plain
from model.layouts.layouts import LAYOUTS
from model.user.from_options import user_model
from model.user.reference import Reference

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

class Normed(Rotary):
    # Has a value that comes from a weight.
    def __init__(self):
        super().__init__()
        self.register_buffer("norms", self.layer.weight.norm(dim=1).detach(), persistent=False)

def normed():
    return Normed()

KEPT = {}

class Keeping(Tied):
    # As libraries do: they keep something when they are called first.
    def __init__(self):
        super().__init__()
        KEPT.setdefault(("built", self.layer.weight.device), torch.ones(5_000_000, device="cpu"))

    def forward(self, ids):
        KEPT.setdefault("asked", torch.ones(8_000_000))
        return super().forward(ids)

def keeping():
    return Keeping()

keeping.example = lambda: example()

def toy():
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))

def many():
    return nn.ParameterList([torch.ones(16) for _ in range(3000)])

def leaky(build, path, device):
    KEPT[len(KEPT)] = torch.ones(3_000_000)
    return theirs(build, path, device)

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


def records(folder: Path, test: str) -> dict[str, dict[str, Any]]:
    found = last_record(folder)["benchmarks"]
    return {one["extra_info"]["strategy"]: one["extra_info"] for one in found if one["name"].startswith(test)}


@pytest.fixture(scope="module")
def whole_run(bench: Bench, folder: Path, file: Path) -> "subprocess.CompletedProcess[str]":
    """The user's model with its checkpoint, recipes of the suite, and three loaders of the user's: two are faulty."""
    return bench(
        *("--model", f"{file}:tied", "--checkpoint", str(folder / "training.pt"), "--state-key", "model"),
        *("--example-input", f"{file}:example", "--strategies", "baseline,mmap_assign,streamed,per_tensor"),
        *("--loader", f"{file}:theirs", "--loader", f"{file}:wrong", "--loader", f"{file}:greedy"),
        *("--loader-bound", "S", "--loader-bound", "3S", "--loader-bound", "0"),
        *("--tolerate", "untied"),
        *("-k", "peak_memory or load_time or own_equivalence or -plain- or -dtype- or -untied-"),
    )


def test_a_strangers_model_is_measured_as_gpt2_is(
    whole_run: "subprocess.CompletedProcess[str]", folder: Path, file: Path
) -> None:
    said = "tied: the state dict 'model' of training.pt is saved as a checkpoint of its own: names without 'module.'"
    # Before anything is measured, and beside the table.
    assert f"checkpoint: {said}" in whole_run.stdout, whole_run.stdout + whole_run.stderr
    assert whole_run.stdout.count(said) == 2
    names = {"baseline", "mmap_assign", "streamed", "per_tensor", "theirs"}
    memory, times = records(folder, "test_peak_memory"), records(folder, "test_load_time")
    # Where nothing has values a wrong one is not seen.
    assert memory.keys() - {"wrong"} == names
    assert times.keys() - {"greedy"} == names
    for record in (*memory.values(), *times.values()):
        assert (record["model"], record["size"], record["dtype"]) == ("mine.py:tied", "tied", "float32")
        assert (record["state_bytes"], record["largest_tensor_bytes"]) == (STATE, LARGEST)
        assert record["first_use"] == "logits"
        assert record["state_digest"] == user_model(f"{file}:tied", None, None, None).state_digest
    loaders = {name: record["loader"] for name, record in times.items() if record["loader"]}
    assert loaders == {name: f"mine.py:{name}" for name in ("theirs", "greedy")}
    requested = {name: memory[name]["device_requested_peak_bytes"] for name in names}
    assert requested == dict.fromkeys(names, STATE) | {"baseline": 2 * STATE}
    # The factory makes 32 MB beside its model, and a weight that it ties then; who builds it is charged for that.
    assert memory["baseline"]["build_peak_bytes"] == pytest.approx(STATE + LARGEST + 32e6, abs=1e6)
    assert memory["baseline"]["host_bound_ratio"] == memory["baseline"]["build_peak_bytes"] / STATE
    assert {memory[name]["layout"] for name in names} == {"torch", "per_tensor"}
    assert memory["theirs"]["host_bound_ratio"] is None
    assert all(record["first_logits_seconds"] > 0 for record in times.values())
    assert str(folder) not in json.dumps(last_record(folder))


def test_a_loader_of_the_users_is_held_to_what_the_user_says_and_to_the_weights(
    whole_run: "subprocess.CompletedProcess[str]", folder: Path
) -> None:
    assert whole_run.returncode == pytest.ExitCode.TESTS_FAILED
    table = {line.split()[0]: line.split()[-1] for line in whole_run.stdout.splitlines() if " tied " in line}
    assert [table[name] for name in ("mmap_assign", "wrong", "theirs", "greedy")] == ["ok", "FAILED", "ok", "FAILED"]
    problems = [(one["strategy"], one["verdict"]) for one in last_record(folder)["problems"]]
    wrong = "layer.bias differs in 1 of 512 values, first at flat index 0: "
    assert [told.partition(wrong)[:2] for name, told in problems if name == "wrong"] == [
        ("", wrong),
        ("WrongModel: ", wrong),
    ]
    assert "above its bound 0 = 0.00x (0.0 MB)" in dict(problems)["greedy"]
    # Its own model comes first, and what it is measured by after that.
    lines = whole_run.stdout.splitlines()
    tests = [line.split()[0] for line in lines if line.startswith("bench/")]
    assert list(dict.fromkeys(tests))[:2] == ["bench/test_equivalence.py", "bench/test_peak_memory.py"]
    # The user's loaders come first, and what is wrong with one is said at once: before it is one that is right.
    assert next(line for line in lines if line.startswith("bench/")).split()[1:] == ["."]
    told, measured = (
        next(place for place, line in enumerate(lines) if line.startswith(start))
        for start in (f"wrong-tied-cpu: {wrong}", "bench/test_peak_memory.py")
    )
    assert told < measured


def test_what_a_loader_of_the_users_does_with_other_models_is_a_warning(
    whole_run: "subprocess.CompletedProcess[str]", folder: Path
) -> None:
    outcomes: dict[str, dict[str, str]] = {"wrong": {}, "theirs": {}, "greedy": {}}
    for cell in last_record(folder)["conformance"]:
        outcomes[cell["strategy"]][cell["property"]] = cell["outcome"]
    assert outcomes["theirs"] == outcomes["greedy"] == {"plain": "passed", "dtype": "WRONG", "untied": "tolerated"}
    assert "WARNING: theirs, dtype: a checkpoint that does not fit: a tensor has another dtype" in whole_run.stdout
    assert "To accept this: --tolerate dtype" in whole_run.stdout
    assert "theirs-dtype" not in whole_run.stdout


def test_buffers_that_no_checkpoint_has_count_wherever_they_get_their_values(
    load: Measure, folder: Path, file: Path
) -> None:
    model = user_model(f"{file}:rotary", str(folder / "weights.pt"), None, None)
    found = {name: checked(load, Case(name, model.label, "sim", "float32", user_model=model)) for name in STRATEGIES}
    beside = 512 * 100 * 4
    assert {record.beside_bytes for record in found.values()} == {beside}
    assert found["sequential"].device_requested_peak_bytes == STATE + LARGEST + beside
    assert found["mmap_assign"].device_requested_peak_bytes == STATE + beside
    assert found["meta_sequential"].device_requested_peak_bytes == 2 * STATE + beside


def test_what_comes_from_weights_is_refused_by_name_and_a_budget_that_is_too_small_fails(
    bench: Bench, folder: Path, file: Path
) -> None:
    weights = ("--model", f"{file}:normed", "--checkpoint", str(folder / "weights.pt"))
    budget = ("--device-memory", "4MiB", "-k", "peak_memory or load_time or test_budget")
    run = bench(*weights, "--strategies", "sequential,mmap_assign", *budget)
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout + run.stderr
    assert " failed" not in run.stdout.splitlines()[-1]
    assert "ERROR: no strategy fits in the given memory" in run.stdout
    assert "without an example" in run.stdout
    lines = [line for line in run.stdout.splitlines() if line.startswith("mmap_assign")]
    assert lines[0].endswith("refused")
    assert lines[1].startswith("mmap_assign-normed: refused: ['norms'] are in no checkpoint, and are computed from")
    assert "; use baseline or sequential, or let the model be built without values of its weights" in lines[1]
    assert "1 of 2 strategies work with normed: sequential; 1 refused" in run.stdout.splitlines()
    assert {one["verdict"].partition(":")[0] for one in last_record(folder)["problems"]} == {"refused"}
    assert "No strategy can load normed with this memory: its weights take " in run.stdout
    assert last_record(folder)["history"]["outcome"] == "failed"


def test_what_the_model_itself_keeps_is_not_called_the_strategys(bench: Bench, folder: Path, file: Path) -> None:
    peaks = ("-k", "peak_memory", "--device", "cpu")
    loader = ("--loader", f"{file}:leaky", "--loader-bound", "20S")
    run = bench("--model", f"{file}:keeping", "--strategies", "sequential,load_assign", *loader, *peaks)
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout + run.stderr
    [problem] = last_record(folder)["problems"]
    assert problem["strategy"] == "leaky"
    assert re.match(r"leak: 12\.\d MB of private host memory are still allocated after", problem["verdict"])


@pytest.mark.parametrize("factory", ["toy", "many"])
@pytest.mark.parametrize("strategy", ["sequential", "streamed"])
def test_a_model_of_few_bytes_or_of_many_tensors_is_no_breach(
    load: Measure, file: Path, factory: str, strategy: str
) -> None:
    model = user_model(f"{file}:{factory}", None, None, None)
    checked(load, Case(strategy, model.label, "sim", "float32", user_model=model))


def test_a_device_needs_one_file_of_several_mapped_at_a_time(load: Measure, folder: Path, file: Path) -> None:
    sharded = LAYOUTS["torch_sharded"]
    (folder / "shards").mkdir()
    sharded.save(Reference(f"{file}:rotary").get()().state_dict(), folder / "shards", save_plain)
    model = user_model(f"{file}:tied", str(folder / "shards"), None, None)
    record = checked(load, Case("mmap_assign", model.label, "sim", "float32", user_model=model))
    assert record.largest_file_bytes == LARGEST
    assert record.host_file_peak_bytes == pytest.approx(LARGEST, abs=2e6)
    assert record.host_file_bound_ratio == LARGEST / STATE


def test_a_plan_of_a_strangers_model_takes_what_theory_says(load: Measure, folder: Path, file: Path) -> None:
    plain = LAYOUTS["safetensors"]
    plain.save(Reference(f"{file}:tied").get()().state_dict(), folder, save_plain)
    model = user_model(f"{file}:tied", str(folder / plain.entrance), None, None)
    theirs = user_strategy(f"{file}:theirs", None)

    def planned(name: str, strategy: Strategy | None = None) -> Measurement:
        return load(Case(name, model.label, "sim", "float32", planned=True, user_model=model, user_strategy=strategy))

    built = building(Case("sequential", model.label, "sim", "float32", planned=True, user_model=model))
    assert built
    assert planned("sequential").device.requested_bytes == STATE + LARGEST
    assert planned("sequential").host.private_bytes == built.peak_bytes
    assert planned("load_assign").host.private_bytes == LARGEST
    assert planned("mmap_assign").host.private_bytes == 0
    private = planned("theirs", theirs).host.private_bytes
    assert private is not None
    assert private >= 2 * STATE
