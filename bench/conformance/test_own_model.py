"""The user's model, judged as it is: what its factory makes otherwise each time is not the load's to answer for."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.conformance.judge import CellStatus, Judgement, judge, judge_own
from bench.conformance.own_model import OwnModel
from bench.strategies.user_strategy import UserRecipe
from model.layouts.layouts import LAYOUTS
from model.user.conversion_request import ConversionRequest
from model.user.from_options import user_model
from model.user.reference import Reference
from model.user.source import Source
from model.user.user_model import UserModel

CODE = """
import os
import torch
from torch import nn
from torch import nn

def drawn(*shape):
    return torch.frombuffer(bytearray(os.urandom(4 * 6)), dtype=torch.int32).float().reshape(2, 3)

class Drawn(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(drawn())
        self.other = nn.Parameter(drawn())
        self.register_buffer("noise", drawn(), persistent=False)

    def forward(self, x):
        return self.weight + self.other + self.noise + x

def make():
    return Drawn()

make.example = torch.ones(1)

def make_tied():
    model = Drawn()
    model.other = model.weight
    return model

make_tied.example = torch.ones(1)

def right(build, path, device):
    model = build()
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.to(device)

def swapping(build, path, device):
    model = right(build, path, device)
    model.weight.data, model.other.data = model.other.data, model.weight.data
    return model

def rounding(build, path, device):
    return right(build, path, device).bfloat16().float()

def skipping(build, path, device):
    model = build()
    state_dict = torch.load(path, weights_only=True)
    del state_dict["other"]
    model.load_state_dict(state_dict, strict=False)
    return model

def answering(build, path, device):
    model = Drawn()
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval().requires_grad_(False)

def assigning(build, path, device):
    model = build()
    model.load_state_dict(torch.load(path, weights_only=True), assign=True)
    return model

def untying(build, path, device):
    model = right(build, path, device)
    model.other = nn.Parameter(model.other.detach().clone())
    return model

class Headed(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.other = nn.Parameter(torch.randn(2, 3)), nn.Parameter(torch.randn(2, 3))

    def forward(self, x):
        return self.weight + self.other * x

def make_headed():
    return Headed()

make_headed.example = torch.ones(1)

def filling(build, path, device):
    model = build()
    taken = model.load_state_dict(torch.load(path, weights_only=True), strict=False)
    assert taken.missing_keys == ["other"], taken
    return model

def told(build, path, device, *, missing):
    assert missing == ("other",)
    return filling(build, path, device)

def on_meta(build, path, device):
    with torch.device("meta"):
        model = build()
    model.load_state_dict(torch.load(path, weights_only=True), strict=False, assign=True)
    return model

def empty(build, path, device):
    model = build()
    model.other = nn.Parameter(torch.empty(2, 3))
    model.load_state_dict(torch.load(path, weights_only=True), strict=False)
    return model

def initialising(build, path, device):
    model = filling(build, path, device)
    nn.init.normal_(model.weight)
    return model

def detaching(build, path, device):
    model = filling(build, path, device)
    model.other = nn.Parameter(model.other.detach())
    return model

def sharing(build, path, device):
    model = filling(build, path, device)
    model.other.data = KEPT.setdefault("other", model.other.data)
    return model

KEPT = {}

def raising(build, path, device):
    raise RuntimeError(f"{path} is not for me")

def leaving(build, path, device):
    raise SystemExit(3)

def cast(build, path, device, *, dtype=None):
    return right(build, path, device).to(dtype)

def half_cast(build, path, device, *, dtype=None):
    model = right(build, path, device)
    model.weight.data = model.weight.data.to(dtype)
    return model

def weights_cast(build, path, device, *, dtype=None):
    model = right(build, path, device)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model

class Steady(Drawn):
    def __init__(self):
        super().__init__()
        self.noise = torch.ones(2, 3) / 3

def make_steady():
    return Steady()
"""

CPU = torch.device("cpu")
LOADERS = {
    "right": None,
    "answering": None,
    "assigning": None,
    "swapping": "weight differs in ",
    "rounding": "weight differs in ",
    "skipping": "other differs in ",
    "raising": "RuntimeError: checkpoint.pt is not for me",
    "leaving": "SystemExit: 3",
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "drawn.py").write_text(CODE)
    return tmp_path / "drawn.py"


def judged_by_own(model: UserModel, file: Path, loader: str, folder: Path) -> Judgement:
    """Return the verdict of a loader of the user's on a checkpoint that lies there."""
    saved = model.build()
    path = folder / "checkpoint.pt"
    torch.save(saved.state_dict(), path)
    of_file = UserModel(model.factory, model.example, Source(path, "torch"))
    return judge_own(UserRecipe(Reference(f"{file}:{loader}")), of_file, path, [path], CPU)


@pytest.mark.parametrize(("loader", "wrong"), LOADERS.items())
def test_a_loader_of_the_users_is_judged_by_the_checkpoint_itself(
    file: Path, tmp_path: Path, loader: str, wrong: str | None
) -> None:
    verdict = judged_by_own(user_model(f"{file}:make", None, None, None), file, loader, tmp_path)
    assert (verdict.outcome == CellStatus.PASSED) == (wrong is None), verdict
    assert verdict.why.startswith(wrong or "")


PARTIAL_LOADERS = {
    "filling": "",
    "told": "",
    # An optimizer that was made before the load does not step it, which a loader of the user's need not keep.
    "detaching": "",
    "right": "RuntimeError: Error(s) in loading state_dict for Headed: Missing key(s)",
    "on_meta": "other is still on meta",
    "empty": "other is not in the checkpoint, and was not initialised: it has values that are not finite, where ",
    "initialising": "weight differs in 6 of 6 values",
}


@pytest.mark.parametrize(("loader", "wrong"), PARTIAL_LOADERS.items())
def test_a_loader_of_a_checkpoint_that_lacks_something_is_judged_by_the_rest(
    file: Path, tmp_path: Path, loader: str, wrong: str
) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save({"weight": torch.rand(2, 3)}, path)
    model = user_model(f"{file}:make_headed", str(path), None, None, ConversionRequest(missing=("oth*",)))
    load = partial(UserRecipe(Reference(f"{file}:{loader}")), missing=model.missing)
    verdict = judge_own(load, model, path, [path], CPU)
    assert (verdict.outcome == CellStatus.PASSED) == (not wrong), verdict
    assert verdict.why.startswith(wrong)


@pytest.mark.parametrize(
    ("loader", "why"),
    [
        ("told", ""),
        ("empty", "other is not in the checkpoint, and was not initialised"),
        ("sharing", "other differs in 6 of 6 values"),
        ("detaching", "other differs in 6 of 6 values"),
    ],
)
def test_a_copy_that_is_judged_lacks_it_too(file: Path, tmp_path: Path, loader: str, why: str) -> None:
    """Initial values are stepped as all else is, whoever else is stepped."""
    torch.save({"module.weight": torch.rand(2, 3)}, tmp_path / "checkpoint.pt")
    model = user_model(
        f"{file}:make_headed", str(tmp_path / "checkpoint.pt"), None, None, ConversionRequest(missing=("oth*",))
    )
    load = partial(UserRecipe(Reference(f"{file}:{loader}")), missing=model.missing)
    verdict = judge(load, "torch", OwnModel(model), CPU)
    assert (verdict.outcome == CellStatus.PASSED) == (not why), verdict
    assert verdict.why.startswith(why)


@pytest.mark.parametrize(
    ("loader", "why"),
    [("right", ""), ("assigning", ""), ("untying", "other was in the memory of weight, and is by itself")],
)
def test_tied_names_may_be_two_tensors_but_only_in_one_memory(
    file: Path, tmp_path: Path, loader: str, why: str
) -> None:
    assert judged_by_own(user_model(f"{file}:make_tied", None, None, None), file, loader, tmp_path).why == why


@pytest.mark.parametrize(
    ("loader", "by_own", "by_suite"),
    [
        ("weights_cast", None, None),
        # As `model.to(dtype)` does, which the suite's own strategies are not to do.
        ("cast", None, "noise is torch.float16, saved as torch.float32"),
        ("half_cast", "other is torch.float32, saved as torch.float16", "other is torch.float32, saved as torch.flo"),
        ("right", "weight is torch.float32, saved as torch.float16", "weight is torch.float32, saved as torch.float16"),
    ],
)
def test_under_a_cast_weights_are_cast_and_nothing_else_has_to_be(
    file: Path, tmp_path: Path, loader: str, by_own: str | None, by_suite: str | None
) -> None:
    """The file keeps its dtype; a loader of the user's may cast what no checkpoint holds, too."""
    model = user_model(f"{file}:make_steady", None, None, None, ConversionRequest(cast="float16"))
    load = partial(UserRecipe(Reference(f"{file}:{loader}")), dtype=torch.float16)
    saved = model.build()
    path = tmp_path / "checkpoint.pt"
    torch.save(saved.state_dict(), path)
    of_file = replace(model, source=Source(path, "torch"))
    verdicts = judge_own(load, of_file, path, [path], CPU), judge(load, "torch", OwnModel(model), CPU)
    for verdict, why in zip(verdicts, (by_own, by_suite), strict=True):
        assert (verdict.outcome == CellStatus.PASSED) == (why is None), verdict
        assert verdict.why.startswith(why or "")


@pytest.mark.parametrize(("loader", "outcome"), [("right", CellStatus.PASSED), ("skipping", CellStatus.WRONG)])
def test_a_factory_that_gives_other_weights_each_time_is_judged_too(
    file: Path, loader: str, outcome: CellStatus
) -> None:
    model = OwnModel(user_model(f"{file}:make", None, None, None))
    assert model.unsteady(model.saved()) == {"noise"}
    assert judge(UserRecipe(Reference(f"{file}:{loader}")), "torch", model, CPU).outcome == outcome


def test_a_loader_is_given_the_path_as_a_string(tmp_path: Path) -> None:
    code = "def kind(build, path, device):\n    model = build()\n    model.seen = type(path), path\n    return model"
    (tmp_path / "kind.py").write_text(code)
    load = UserRecipe(Reference(f"{tmp_path / 'kind.py'}:kind"))
    path = tmp_path / LAYOUTS["torch"].entrance
    assert load(nn.Module, path, CPU).seen == (str, str(path))
