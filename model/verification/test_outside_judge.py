"""Correct models of all kinds pass. For models that hide errors see `bench/selftest/`."""

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.file_identity import file_identities
from model.checkpoints.specification import Specification
from model.conftest import make_checkpoint
from model.state_dict import first_names
from model.user.from_options import user_model
from model.verification import outside_judge
from model.verification.outside_judge import judge_of
from model.verification.process_memory import memory_of
from model.verification.tensor_places import UNJUDGED, PlacesStatement, effective_stride, teller

CPU = torch.device("cpu")

MODELS = '''
import torch
from torch import nn

class Holds(nn.Module):
    """Has a weight, and these tensors."""
    def __init__(self, **tensors):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 6))
        for name, one in tensors.items():
            setattr(self, name, nn.Parameter(one)) if one.is_floating_point() else self.register_buffer(name, one)

def plain(): return nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 6))
def resnet(): return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(4, 4))
def lstm(): return nn.LSTM(5, 7, num_layers=2, bidirectional=True)
def transformer(): return nn.TransformerEncoderLayer(8, 2, 16)
def half(): return nn.Linear(6, 4).bfloat16()
def quarter(): return Holds(small=torch.randn(3, 5).to(torch.float8_e4m3fn).view(torch.uint8))
def odd(): return Holds(empty=torch.zeros(0, 3), scalar=torch.tensor(2.0), count=torch.arange(7))
def channels_last(): return nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
def transposed(): return Holds(turned=torch.randn(5, 3).t(), one=torch.randn(1, 6))
def complicated(): return Holds(complex=torch.randn(3, 2, dtype=torch.complex64), yes=torch.tensor([True, False]))

def tied():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    return model

def shared():
    one = nn.Linear(4, 4)
    return nn.Sequential(one, nn.ReLU(), one)

def beside():
    model = Holds()
    model.register_buffer("frequencies", torch.arange(6.0), persistent=False)
    return model

def twins():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(4, 3))
    nn.init.zeros_(model[0].bias)
    nn.init.zeros_(model[1].bias)
    return model

def compiled(): return torch.jit.script(nn.Linear(3, 2))

def normed(): return nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
'''
NAMES = [
    line.split("def ")[1].split("(")[0]
    for line in MODELS.splitlines()
    if line.startswith("def ") and "compiled" not in line
]
# Models whose state dict, as they are built, does not tell what is registered.
UNTOLD = '''
import torch
from collections import OrderedDict
from torch import nn

class Kept(OrderedDict):
    """A dict of a type of its own."""

class Frozen(nn.Module):
    """Leaves a frozen part out of its state dict."""
    def __init__(self):
        super().__init__()
        self.used, self.frozen = nn.Linear(4, 4), nn.Linear(4, 4)
    def state_dict(self, *given, **more):
        return {name: one for name, one in super().state_dict(*given, **more).items() if "frozen" not in name}

def left_out(): return Frozen()

def own_dict():
    model = nn.Linear(4, 4)
    model._parameters = Kept(model._parameters)
    return model

def own_dict_of_modules():
    model = nn.Sequential(nn.Linear(4, 4))
    model._modules = Kept(model._modules)
    return model

def hidden():
    model = nn.Linear(4, 4)
    model.__dict__["weight"] = model._parameters["weight"]
    return model
'''


def copied(model: nn.Module, saved: dict[str, Tensor]) -> None:
    model.load_state_dict(saved, strict=False)


def assigned(model: nn.Module, saved: dict[str, Tensor]) -> None:
    model.load_state_dict(saved, strict=False, assign=True)
    if isinstance(model, nn.LSTM):
        model.flatten_parameters()


def cloned(model: nn.Module, saved: dict[str, Tensor]) -> None:
    model.load_state_dict({name: one.clone() for name, one in saved.items()}, strict=False)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have models of this process, which may have children, looked at twice without a wait."""
    monkeypatch.setattr(outside_judge, "LATER_SECONDS", 0.0)


@pytest.fixture
def checkpoint_of(tmp_path: Path) -> Callable[..., Checkpoint]:
    (tmp_path / "models.py").write_text(MODELS + UNTOLD)

    def make_one(name: str, layout: str = "torch", cast: str = "") -> Checkpoint:
        mine = user_model(f"{tmp_path / 'models.py'}:{name}")
        specification = Specification(name, "float32", layout, replace(mine, cast=cast), cast=cast)
        made = make_checkpoint(specification, tmp_path / "made")
        return replace(made, file_identities=file_identities(made.folder))

    return make_one


def judged(checkpoint: Checkpoint, model: nn.Module) -> str | None:
    """Have this process judge a model of its own."""
    judge = judge_of(checkpoint, CPU)
    assert judge
    here, there = multiprocessing.Pipe()
    tell = teller(there.fileno())
    here.send_bytes(UNJUDGED)
    assert not tell(model, ())
    with memory_of(os.getpid()) as memory:
        assert memory
        return judge(memory, told := PlacesStatement.of(here.recv_bytes()), lambda: told)


def all_names(model: nn.Module, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return what was saved, by tied names too that have none in the file."""
    saved = dict(checkpoint.tensors())
    return {name: saved[name if name in saved else first] for name, first in first_names(model.state_dict()).items()}


CASES = [
    (name, layout)
    for name in NAMES
    for layout in ("torch", "safetensors")
    # In a safetensors file values lie one after the other.
    if layout != "safetensors" or name not in ("channels_last", "transposed")
]


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_a_right_model_is_not_accused(checkpoint_of: Callable[..., Checkpoint], name: str, layout: str) -> None:
    checkpoint = checkpoint_of(name, layout)
    for load in (copied, assigned, cloned):
        model = checkpoint.specification.build()
        load(model, all_names(model, checkpoint))
        assert judged(checkpoint, model) is None


@pytest.mark.parametrize("name", ["plain", "transposed", "tied", "beside", "odd"])
def test_a_right_model_is_not_accused_where_it_is_cast(checkpoint_of: Callable[..., Checkpoint], name: str) -> None:
    checkpoint = checkpoint_of(name, cast="bfloat16")
    model = checkpoint.specification.architecture.saved(lambda _: None).bfloat16()
    assert judged(checkpoint, model) is None
    weight = next(model.parameters()).detach()
    weight[0, 0] += 1
    assert "differs from what was saved, by its SHA-256" in str(judged(checkpoint, model))
    assert "is torch.float32, saved as torch.bfloat16" in str(judged(checkpoint, model.float()))


def loaded(checkpoint: Checkpoint) -> nn.Module:
    model = checkpoint.specification.build()
    cloned(model, all_names(model, checkpoint))
    return model


def test_other_strides_are_told(checkpoint_of: Callable[..., Checkpoint]) -> None:
    checkpoint = checkpoint_of("plain")
    model = loaded(checkpoint)
    weight = model.get_parameter("0.weight")
    weight.data = weight.data.t().contiguous().t()
    assert judged(checkpoint, model) == "WrongModel: 0.weight has strides (1, 4), saved with (6, 1)"


def test_a_tie_is_told_that_was_not_there(checkpoint_of: Callable[..., Checkpoint]) -> None:
    """The two are equal to the bit: an optimizer would step both."""
    checkpoint = checkpoint_of("twins")
    model = loaded(checkpoint)
    assert judged(checkpoint, model) is None
    model.get_submodule("1").bias = model.get_parameter("0.bias")
    assert judged(checkpoint, model) == "WrongModel: 1.bias is one tensor with 0.bias, which it was not"


def test_a_buffer_that_no_checkpoint_has_is_compared(checkpoint_of: Callable[..., Checkpoint]) -> None:
    checkpoint = checkpoint_of("beside")
    model = loaded(checkpoint)
    model.get_buffer("frequencies")[5] = 0
    assert str(judged(checkpoint, model)).startswith(
        "WrongModel: frequencies is in no checkpoint, and has other values"
    )


def test_values_that_are_not_contiguous_are_compared(checkpoint_of: Callable[..., Checkpoint]) -> None:
    checkpoint = checkpoint_of("channels_last")
    model = loaded(checkpoint)
    model.get_parameter("weight").data[7, 2, 2, 2] = 0
    assert judged(checkpoint, model) == "WrongModel: weight differs from what was saved, by its SHA-256"


def test_a_model_of_torchscript_is_for_its_own_process(checkpoint_of: Callable[..., Checkpoint]) -> None:
    assert judge_of(checkpoint_of("compiled"), CPU) is None


def test_strides_that_do_not_matter_are_alike() -> None:
    assert effective_stride((1, 6), (6, 1)) == effective_stride((1, 6), (1, 1)) == (0, 1)
    assert effective_stride((0, 3), (3, 1)) == (0, 0)


@pytest.mark.parametrize("name", ["left_out", "own_dict", "own_dict_of_modules", "hidden"])
def test_a_model_that_is_odd_as_it_is_built_is_left_to_its_process(
    name: str, checkpoint_of: Callable[..., Checkpoint]
) -> None:
    assert judge_of(checkpoint_of(name), CPU) is None
