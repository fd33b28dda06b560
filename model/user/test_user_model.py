"""The user's model: its inputs, its checkpoint, and its identity."""

import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from model.checkpoints.cache import CheckpointCache
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.making import make_sparse
from model.checkpoints.manifest import misfit
from model.checkpoints.specification import Specification
from model.conftest import of_user_model
from model.layouts.layouts import LAYOUTS
from model.state_dict import state_digest
from model.user.factory import skeleton
from model.user.from_options import user_model
from model.user.reference import Reference
from model.verification.verify import WrongModel, check_model

CPU = torch.device("cpu")

CODE = """
import torch
from torch import nn

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("scale", torch.tensor([3.0]), persistent=False)

    def forward(self, ids, factor=1):
        return {"logits": self.head(self.drop(self.embed(ids))) * self.scale * factor, "ids": (ids, [ids + 1])}

def make():
    return Tied()

def make_asked():
    return Tied()

make_asked.example = lambda: torch.tensor([1, 2])

def example():
    return {"ids": torch.tensor([3]), "factor": 2}

def positional():
    return torch.randint(7, (2,)), 3

def bf16():
    return Tied().to(torch.bfloat16)

def not_on_meta():
    model = Tied()
    assert model.embed.weight.sum().item() < 1e9
    return model
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "mine.py").write_text(CODE)
    return tmp_path / "mine.py"


@pytest.fixture
def theirs(file: Path, tmp_path: Path) -> Path:
    """A checkpoint that the user has."""
    torch.manual_seed(7)
    torch.save(Reference(f"{file}:make").get()().state_dict(), tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


def loaded(checkpoint: Checkpoint) -> nn.Module:
    model = checkpoint.specification.build()
    model.load_state_dict(dict(checkpoint.tensors()) | {"head.weight": dict(checkpoint.tensors())["embed.weight"]})
    return model


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_a_checkpoint_one_is_made_as_the_factory_makes_it(file: Path, tmp_path: Path, layout: str) -> None:
    checkpoint = of_user_model(user_model(f"{file}:make", example=f"{file}:example"), tmp_path, layout)
    (tmp_path / "again").mkdir()
    torch.rand(1)  # Whatever was random before.
    again = of_user_model(user_model(f"{file}:make", example=f"{file}:example"), tmp_path / "again", layout)
    first, second = (dict(one.tensors()) for one in (checkpoint, again))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    check_model(checkpoint, CPU, loaded(checkpoint))


def test_a_checkpoint_of_the_users_stays_where_it_is(theirs: Path, file: Path, tmp_path: Path) -> None:
    checkpoint = of_user_model(user_model(f"{file}:make", str(theirs), example=f"{file}:example"), tmp_path)
    assert checkpoint.path == theirs
    assert checkpoint.files == (theirs,)
    assert {path.name for path in checkpoint.folder.iterdir()} == {"digests.json", "manifest.json", "logits.pt"}
    check_model(checkpoint, CPU, loaded(checkpoint))


@pytest.mark.parametrize("layout", sorted(LAYOUTS.keys() - {"torch"}))
def test_it_is_saved_again_in_another_layout(theirs: Path, file: Path, tmp_path: Path, layout: str) -> None:
    checkpoint = of_user_model(user_model(f"{file}:make", str(theirs), example=f"{file}:example"), tmp_path, layout)
    saved = torch.load(theirs, weights_only=True)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in checkpoint.tensors())
    check_model(checkpoint, CPU, loaded(checkpoint))


def test_so_is_the_state_dict_in_a_training_checkpoint(theirs: Path, file: Path, tmp_path: Path) -> None:
    saved = torch.load(theirs, weights_only=True)
    torch.save({"model": {f"module.{name}": t for name, t in saved.items()}, "step": 7}, tmp_path / "training.pt")
    checkpoint = of_user_model(user_model(f"{file}:make", str(tmp_path / "training.pt"), "model"), tmp_path)
    assert checkpoint.path.parent == checkpoint.folder
    assert all(torch.equal(tensor, saved[name]) for name, tensor in checkpoint.tensors())
    check_model(checkpoint, CPU, loaded(checkpoint))


@pytest.mark.parametrize("example", ["example", "positional"])
def test_a_wrong_output_is_found(theirs: Path, file: Path, tmp_path: Path, example: str) -> None:
    """Every weight is right: non-persistent buffers count too, and outputs."""
    checkpoint = of_user_model(user_model(f"{file}:make", str(theirs), example=f"{file}:{example}"), tmp_path)
    assert len(checkpoint.outputs()) == 3
    model = loaded(checkpoint)
    hook = model.head.register_forward_hook(lambda _module, _given, returned: 2 * returned)  # type: ignore[union-attr]
    with pytest.raises(WrongModel, match="the first logits are off by"):
        check_model(checkpoint, CPU, model)
    hook.remove()
    model.scale.fill_(2.0)  # type: ignore[operator]
    with pytest.raises(WrongModel, match=r"^scale is in no checkpoint, and has other values than the model is built"):
        check_model(checkpoint, CPU, model)


def test_a_tie_that_is_lost_is_found(theirs: Path, file: Path, tmp_path: Path) -> None:
    checkpoint = of_user_model(user_model(f"{file}:make", str(theirs)), tmp_path)
    model = loaded(checkpoint)
    model.head.weight = nn.Parameter(model.head.weight.detach().clone())  # type: ignore[union-attr, operator]
    with pytest.raises(WrongModel, match=r"head\.weight was one tensor with embed\.weight, and is by itself"):
        check_model(checkpoint, CPU, model)


def test_without_an_example_weights_are_only_looked_at(theirs: Path, file: Path, tmp_path: Path) -> None:
    asked_nothing = user_model(f"{file}:make", str(theirs))
    assert asked_nothing.make_input is None
    assert asked_nothing.outputs(asked_nothing.build()) == []
    assert user_model(f"{file}:make_asked").make_input is not None
    checkpoint = of_user_model(asked_nothing, tmp_path)
    assert checkpoint.specification.making_bytes == 0
    assert checkpoint.outputs() == []


@pytest.mark.parametrize("change", ["weights", "code", "example"])
def test_what_was_made_is_made_again_when_something_of_the_users_changes(
    theirs: Path, file: Path, tmp_path: Path, change: str
) -> None:
    model = user_model(f"{file}:make", str(theirs), example=f"{file}:example")
    checkpoint = of_user_model(model, tmp_path, "per_tensor")
    specification = checkpoint.specification
    if change == "weights":
        torch.save(model.build().state_dict(), theirs)
    elif change == "code":
        file.write_text(f"{CODE}\n# changed")
    else:
        specification = replace(specification, user_model=replace(model, example=None))
    assert misfit(specification, checkpoint.folder) == "its model differs"


def test_a_file_that_changes_while_it_is_used_is_found(theirs: Path, file: Path, tmp_path: Path) -> None:
    model = user_model(f"{file}:make", str(theirs))
    cache = CheckpointCache(tmp_path, print)
    checkpoint = cache.get(Specification(model.label, model.dtype, "torch", model))
    check_model(checkpoint, CPU, loaded(checkpoint))
    theirs.write_bytes(theirs.read_bytes())
    with pytest.raises(Exception, match=r"weights\.pt was written to while it was in use"):
        check_model(checkpoint, CPU, loaded(checkpoint))
    cache.close()


def test_a_damaged_file_is_found_before_it_is_used(theirs: Path, file: Path, tmp_path: Path) -> None:
    value = bytes(torch.load(theirs, weights_only=True)["embed.weight"].view(torch.uint8).flatten().tolist())
    theirs.write_bytes(theirs.read_bytes().replace(value, bytes(len(value))))
    with pytest.raises(Exception, match=r"weights\.pt has a damaged record"):
        of_user_model(user_model(f"{file}:make", str(theirs)), tmp_path)


def test_its_footprint_counts_shared_memory_once(file: Path) -> None:
    model = user_model(f"{file}:make")
    footprint = Specification(model.label, model.dtype, "torch", model).footprint
    assert (footprint.state_bytes, footprint.largest_tensor_bytes, footprint.tensors) == (112, 112, 1)
    assert (model.label, model.dtype) == ("make", "float32")
    assert user_model(f"{file}:bf16").dtype == "bfloat16"


def test_models_are_told_apart_by_their_names_dtypes_shapes_and_ties(file: Path) -> None:
    tied, tied_too, not_on_meta, bf16 = (
        user_model(f"{file}:{name}").state_digest for name in ("make", "make_asked", "not_on_meta", "bf16")
    )
    assert tied == tied_too == not_on_meta
    untied = dict(skeleton(Reference(f"{file}:make")).state_dict())
    assert state_digest(untied) == tied
    untied["head.weight"] = untied["head.weight"].clone()
    greater = untied | {"head.weight": torch.ones(8, 4)}
    renamed = {f"model.{name}": value for name, value in untied.items()}
    assert len({tied, bf16, *(state_digest(one) for one in (untied, greater, renamed))}) == 5


def test_a_plan_of_it_keeps_ties(file: Path, tmp_path: Path) -> None:
    model = user_model(f"{file}:make")
    specification = Specification(model.label, model.dtype, "torch", model)
    make_sparse(specification, tmp_path / "planned")
    saved: dict[str, Any] = torch.load(Checkpoint(specification, tmp_path / "planned").path, weights_only=True)
    assert saved.keys() == {"embed.weight", "head.weight"}
    assert saved["embed.weight"].data_ptr() == saved["head.weight"].data_ptr()


def test_what_cannot_be_built_on_meta_is_built_to_be_looked_at(file: Path) -> None:
    assert not skeleton(Reference(f"{file}:not_on_meta")).state_dict()["embed.weight"].is_meta
    model = user_model(f"{file}:not_on_meta")
    assert model.dtype == "float32"
    assert Specification(model.label, model.dtype, "torch", model).footprint.state_bytes == 112


def test_an_example_may_be_what_is_asked_itself(file: Path) -> None:
    file.write_text(f"{CODE}\nmake.example = torch.tensor([1, 2])")
    model = user_model(f"{file}:make")
    assert model.make_input
    assert model.make_input().tolist() == [1, 2]
    assert len(model.outputs(model.build())) == 3


def test_every_random_number_of_its_forward_pass_is_the_same_each_time(file: Path) -> None:
    numpy = pytest.importorskip("numpy")
    draws = """
class Draws(Tied):
    def forward(self, ids):
        import numpy, random
        return ids + torch.rand(1) + random.random() + numpy.random.rand()

def draws():
    return Draws()

draws.example = torch.tensor([1])
"""
    file.write_text(f"{CODE}{draws}")
    model = user_model(f"{file}:draws")
    one = model.outputs(model.build())
    for seeded in (random.seed, numpy.random.seed, torch.manual_seed):
        seeded(1)
    assert torch.equal(one[0], model.outputs(model.build())[0])
    assert not torch.equal(model.outputs(model.build(), seed=5)[0], one[0])
    # What is random beside it stays as it is.
    found = random.random(), numpy.random.rand()
    random.seed(1)
    numpy.random.seed(1)
    assert found == (random.random(), numpy.random.rand())
