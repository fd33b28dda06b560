"""Tests of factories that options refuse, each with one line."""

from pathlib import Path

import pytest

from model.conftest import refusal
from model.user.factory import skeleton
from model.user.from_options import user_model

CODE = """
import torch
from torch import nn

def make():
    return nn.Linear(2, 2)

def needs(width):
    pass

def empty():
    return nn.ReLU()

def nothing():
    pass

class Odd(torch.Tensor):
    pass

def quantised():
    model = nn.Linear(2, 2)
    model.weight = nn.Parameter(torch.ones(2, 2).as_subclass(Odd))
    return model

def lazy():
    return nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d())

def lazy_buffers():
    return nn.LazyBatchNorm1d(affine=False)

def lazy_and_run():
    model = lazy()
    model(torch.ones(2, 3))
    return model
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(CODE)
    return tmp_path / "mine.py"


@pytest.mark.parametrize(
    ("factory", "example", "said"),
    [
        ("lazy_buffers", None, "--model: mine.py:lazy_buffers returns a lazy model, whose running_mean is not init"),
        ("quantised", None, "--model: mine.py:quantised returns a model whose weight is of type Odd, and"),
        ("CODE", None, "--model: mine.py has no 'CODE'; choose from "),
        ("make", "needs", "--example-input: mine.py:needs needs arguments (width)"),
    ],
)
def test_what_is_no_factory_is_told(file: Path, factory: str, example: str | None, said: str) -> None:
    example = example and f"{file}:{example}"
    assert refusal(user_model, f"{file}:{factory}", example=example).startswith(said)


def test_a_lazy_model_that_was_run_is_one(file: Path) -> None:
    assert len(skeleton(user_model(f"{file}:lazy_and_run").factory).state_dict()) == 7
