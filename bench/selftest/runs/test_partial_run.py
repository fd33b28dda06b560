"""Loads of a part of a model: what every recipe takes for them, and which of them refuse by name."""

from pathlib import Path
from typing import Any

import pytest
import torch

from bench.conftest import Bench, Measure, last_record
from bench.measure.case import Case
from bench.measure.expected import terms
from bench.measure.refusals import remedy, skip_reason, states_refusal
from bench.strategies import STRATEGIES
from model.user.conversion_request import ConversionRequest
from model.user.from_options import user_model
from model.user.user_model import UserModel

CODE = """
import torch
from torch import nn

class Headed(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(*(nn.Linear(512, 512) for _ in range(8)))
        self.norm = nn.LayerNorm(512)
        self.head = nn.Linear(512, 9000)

    def forward(self, x):
        return self.head(self.norm(self.body(x)))

class Adapted(Headed):
    def __init__(self):
        super().__init__()
        self.down = nn.Parameter(torch.randn(4, 512))

def headed():
    return Headed()

headed.example = lambda: torch.ones(2, 512)

def adapted():
    return Adapted()

def loose(build, path, device):
    model = build().to(device)
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), strict=False)
    return model

def emptied(build, path, device):
    model = loose(build, path, device)
    model.head = torch.nn.utils.skip_init(nn.Linear, 512, 9000, device=device)
    model.head.weight.data.fill_(0)
    return model
"""
BODY = 4 * 8 * (512 * 512 + 512)
HEAD = 4 * (9000 * 512 + 9000)
NORM = 4 * 2 * 512


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    """The user's code, with a checkpoint of the body beside it."""
    file = folder / "mine.py"
    file.write_text(CODE)
    body = {f"body.{at}.{name}": torch.randn(size) for at in range(8) for name, size in SIZES.items()}
    torch.save(body, folder / "body.pt")
    return file


FAULTY = {"emptied": "FAILED", "dcp": "skipped"}
SIZES = {"weight": (512, 512), "bias": (512,)}


def model(
    file: Path, factory: str = "headed", missing: tuple[str, ...] = ("head.*", "norm.*"), cast: str = ""
) -> UserModel:
    wanted = ConversionRequest(missing=missing, cast=cast or None)
    return user_model(f"{file}:{factory}", str(file.parent / "body.pt"), None, None, wanted)


@pytest.mark.parametrize(
    ("strategy", "cast"),
    [(strategy, "") for strategy in STRATEGIES] + [(strategy, "bfloat16") for strategy in ("load_assign", "streamed")],
)
def test_theory_knows_what_is_in_the_model_and_not_in_the_checkpoint(
    load: Measure, file: Path, strategy: str, cast: str
) -> None:
    case = Case(strategy, "headed", "sim", "float32", user_model=model(file, cast=cast), cast=cast)
    assert case.specification.checkpoint_bytes == BODY
    assert case.specification.footprint.state_bytes == (BODY + HEAD + NORM) // (2 if cast else 1)
    [expression] = [
        one for name, one in case.strategy.bounds.of_peaks(on_host=False).items() if name.startswith("device_req")
    ]
    bound = terms(case).peak_bound("device_requested_peak_bytes", expression)
    off = bound - (load(case).device.requested_bytes or 0)
    # Memory for what is missing may be taken after what a stream converts is gone.
    assert off == 0 or (strategy == "streamed" and cast and 0 < off <= 2**22)


def test_a_run_says_what_is_missing_and_holds_a_loader_to_it(bench: Bench, folder: Path, file: Path) -> None:
    done = bench(
        *("--model", f"{file}:headed", "--checkpoint", str(folder / "body.pt"), "--device", "cpu"),
        *("--allow-missing", "head.*", "--allow-missing", "norm.*"),
        *("-k", "own_equivalence or (peak_memory and (mmap or dcp))"),
        *(
            "--loader",
            f"{file}:loose",
            "--loader",
            f"{file}:emptied",
            "--strategies",
            "mmap_assign,per_tensor,dcp",
        ),
    )
    table = {line.split()[0]: line.split()[-1] for line in done.stdout.splitlines() if " headed " in line}
    assert table == dict.fromkeys(("mmap_assign", "per_tensor", "loose"), "ok") | FAULTY, done.stdout + done.stderr
    assert "emptied-headed-cpu: head.weight is not in the checkpoint, and was not initialised: it has 0, where " in (
        done.stdout
    )
    said = "headed: the model keeps what it starts with in 'norm.weight', 'norm.bias', 'head.weight' and 1 more, and"
    assert done.stdout.count(said) == 2
    assert "dcp loads whole checkpoints only; leave out --allow-missing" in done.stdout
    record = last_record(folder)["benchmarks"][0]["extra_info"]
    assert (record["checkpoint_bytes"], record["missing_bytes"]) == (BODY, HEAD + NORM)


def test_what_has_no_reset_parameters_is_refused_by_skeletons(file: Path) -> None:
    missing: Any = ("head.*", "norm.*", "down")
    cases = [Case(name, "adapted", "cpu", "float32", user_model=model(file, "adapted", missing)) for name in STRATEGIES]
    assert {case.strategy_name for case in cases if states_refusal(case)} == {*STRATEGIES} - {"baseline", "sequential"}
    assert {remedy(case) for case in cases if states_refusal(case)} == {
        "use baseline or sequential, or give the modules of what its checkpoint lacks a reset_parameters()"
    }
    assert not any(
        states_refusal(Case(name, "headed", "cpu", "float32", user_model=model(file))) for name in STRATEGIES
    )


def test_a_peer_that_takes_no_missing_names_is_left_out(file: Path) -> None:
    # Of those that want another library, that it is not installed comes first.
    why = skip_reason(Case("dcp", "headed", "cpu", "float32", user_model=model(file)))
    assert why == "dcp loads whole checkpoints only; leave out --allow-missing"
