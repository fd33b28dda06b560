"""A checkpoint without a head: the values of the missing tensors, and the loaded models that pass."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.making import make_sparse
from model.checkpoints.specification import Specification
from model.conftest import of_user_model
from model.examine.trust import examine
from model.layouts.layouts import LAYOUTS
from model.user.conversion_request import ConversionRequest
from model.user.from_options import user_model
from model.user.user_model import UserModel
from model.verification.verify import WrongModel, check_model, check_structure

CPU = torch.device("cpu")

CODE = """
import torch
from torch import nn

class Headed(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(16)
        self.head = nn.Linear(8, 16, bias=False)
        self.same = nn.Linear(8, 16, bias=False)
        self.same.weight = self.head.weight

    def forward(self, x):
        return self.norm(self.head(self.body(x)))

def make():
    return Headed()

make.example = lambda: torch.ones(2, 8)

def quiet():
    return Headed()
"""
MISSING = (
    *("norm.weight", "norm.bias", "norm.running_mean", "norm.running_var", "norm.num_batches_tracked"),
    *("head.weight", "same.weight"),
)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UserModel:
    """Its checkpoint has the body alone."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "mine.py").write_text(CODE)
    torch.save({"body.weight": torch.randn(8, 8), "body.bias": torch.randn(8)}, tmp_path / "body.pt")
    wanted = ConversionRequest(missing=("norm.*", "head.*", "same.*"))
    return user_model(f"{tmp_path / 'mine.py'}:make", str(tmp_path / "body.pt"), wanted=wanted)


def specified(model: UserModel, layout: str = "torch") -> Specification:
    return Specification(model.label, model.dtype, layout, model)


def loaded(checkpoint: Checkpoint) -> nn.Module:
    model = checkpoint.specification.build()
    model.load_state_dict(dict(checkpoint.tensors()), strict=False)
    return model


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_is_loaded_as_it_lies_and_saved_again_without_what_it_lacks(
    model: UserModel, tmp_path: Path, layout: str
) -> None:
    checkpoint = of_user_model(model, tmp_path, layout)
    specification = checkpoint.specification
    assert (specification.in_place is not None) == (layout == "torch")
    assert specification.keywords == {"missing": MISSING}
    assert dict(checkpoint.tensors()).keys() == {"body.weight", "body.bias"}
    check_model(checkpoint, CPU, loaded(checkpoint))
    held = {name: one for name, one in model.skeleton().state_dict().items() if name not in MISSING}
    examine(layout, checkpoint.path, held, contents=True)


def test_it_has_a_footprint_of_its_own(model: UserModel, tmp_path: Path) -> None:
    specification = specified(model)
    body = 4 * (64 + 8)
    assert specification.footprint.state_bytes == body + 4 * 4 * 16 + 8 + 4 * 128
    assert specification.checkpoint_bytes == specification.largest_file_bytes == body
    # The largest tensor of the model is not read.
    assert specification.footprint.largest_tensor_bytes == 4 * 128
    assert specification.saved.largest_bytes == 4 * 64
    assert specification.saved.ends_bytes == body
    assert replace(specification, cast="bfloat16").saved.ends_bytes == body // 2
    # What the model starts with is asked of one that is made.
    assert specification.making_bytes == specification.footprint.state_bytes
    assert model.state_digest != user_model(model.factory.text).state_digest


def test_what_it_starts_with_is_known_though_it_is_asked_nothing(model: UserModel, tmp_path: Path) -> None:
    wanted = ConversionRequest(missing=("norm.*", "head.*", "same.*"))
    quiet = user_model(f"{tmp_path / 'mine.py'}:quiet", str(tmp_path / "body.pt"), wanted=wanted)
    assert quiet.make_input is None
    checkpoint = of_user_model(quiet, tmp_path)
    assert checkpoint.initial_values().keys() == {*MISSING}
    check_model(checkpoint, CPU, loaded(checkpoint))


def test_a_plan_lacks_it_too(model: UserModel, tmp_path: Path) -> None:
    make_sparse(specified(model, "safetensors"), tmp_path / "plan")
    planned = Checkpoint(specified(model, "safetensors"), tmp_path / "plan")
    assert dict(planned.tensors()).keys() == {"body.weight", "body.bias"}
    check_structure(planned, CPU, specified(model).build())


def scaled(name: str, factor: float) -> Callable[[nn.Module], object]:
    return lambda model: model.get_parameter(name).data.mul_(factor)


def untie(model: nn.Module) -> None:
    model.get_submodule("same").weight = nn.Parameter(model.get_parameter("same.weight").detach().clone())


IN_KIND: list[tuple[Callable[[nn.Module], object], str]] = [
    (untie, "same.weight was one tensor with head.weight, and is by itself"),
    (lambda model: model.get_submodule("norm").to("meta"), "norm.weight is on meta, not on cpu"),
    (lambda model: setattr(model, "norm", nn.BatchNorm1d(3)), r"norm.weight has shape \[3\], made as \[16\]"),
    (lambda model: model.get_submodule("norm").double(), "norm.weight is torch.float64, made as torch.float32"),
    (lambda model: delattr(model.get_submodule("norm"), "running_var"), "norm.running_var is not in the model"),
]
IN_VALUES: list[tuple[Callable[[nn.Module], object], str]] = [
    (
        scaled("head.weight", 0),
        "head.weight is not in the checkpoint, and was not initialised: it has 0, where the model starts",
    ),
    (scaled("body.weight", 2), "body.weight differs in 64 of 64 values"),
]


@pytest.mark.parametrize(("damage", "said"), IN_KIND + IN_VALUES)
def test_a_model_that_is_not_right_is_told(
    model: UserModel, tmp_path: Path, damage: Callable[[nn.Module], object], said: str
) -> None:
    checkpoint = of_user_model(model, tmp_path)
    wrong = loaded(checkpoint)
    damage(wrong)
    with pytest.raises(WrongModel, match=said):
        check_model(checkpoint, CPU, wrong)
    if (damage, said) in IN_KIND:
        with pytest.raises(WrongModel, match=said):
            check_structure(checkpoint, CPU, wrong)
    else:
        check_structure(checkpoint, CPU, wrong)


def test_the_outputs_of_a_random_head_are_not_compared(model: UserModel, tmp_path: Path) -> None:
    checkpoint = of_user_model(model, tmp_path)
    assert len(checkpoint.outputs()) == 1
    assert checkpoint.reference_outputs().difference([torch.zeros(2, 16)]) is None
    assert model.source
    assert str(model.source.note()).endswith("and its outputs are not compared")
