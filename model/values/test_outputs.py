"""Tests of the comparison of outputs: infinities, NaNs, and models whose outputs vary."""

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model.values.outputs import (
    Comparability,
    ModelSnapshot,
    ReferenceOutputs,
    difference_in_outputs,
    reference_outputs,
)

INF, NAN = float("inf"), float("nan")

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e5m2)


@pytest.mark.parametrize("dtype", FLOATS)
def test_what_is_not_finite_has_to_be_equal(dtype: torch.dtype) -> None:
    saved = torch.tensor([1.0, INF, -INF, NAN, 2.0]).to(dtype)
    assert difference_in_outputs([saved.clone()], [saved]) is None
    for place in range(5):
        for value in {1.0, 2.0, INF, -INF, NAN} - {saved[place].item()}:
            wrong = saved.clone()
            wrong[place] = value
            if (place, str(value)) != (3, "nan"):
                assert difference_in_outputs([wrong], [saved]) is not None, (place, value)


def test_the_scale_is_that_of_finite_values() -> None:
    saved = torch.tensor([-INF, 100.0, NAN])
    assert difference_in_outputs([torch.tensor([-INF, 100.05, NAN])], [saved]) is None
    differing = difference_in_outputs([torch.tensor([-INF, 100.2, NAN])], [saved])
    assert differing == "the first logits are off by 0.2, where the saved model's reach 100"
    differing = difference_in_outputs([torch.tensor([-INF, INF, NAN])], [saved])
    assert differing == "the first logits are inf at flat index 1, where the saved model's are 100"


def test_nothing_may_be_finite_or_there_may_be_nothing() -> None:
    for saved in (torch.full((2, 3), NAN), torch.full((3,), -INF), torch.empty(0, 4), torch.zeros(())):
        assert difference_in_outputs([saved.clone()], [saved]) is None
    assert difference_in_outputs([torch.tensor(1e-9)], [torch.zeros(())])


def test_complex_values_are_compared_part_by_part() -> None:
    saved = torch.tensor([complex(1, -INF), complex(NAN, 3)])
    assert difference_in_outputs([saved + 1e-4], [saved]) is None
    assert difference_in_outputs([torch.tensor([complex(1, INF), complex(NAN, 3)])], [saved])
    assert difference_in_outputs([torch.tensor([complex(1, -INF), complex(NAN, 3.1)])], [saved])


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_what_has_no_rounding_is_equal(dtype: torch.dtype) -> None:
    saved = torch.tensor([[1, 0]]).to(dtype)
    assert difference_in_outputs([saved.clone()], [saved]) is None
    assert "are other ones" in str(difference_in_outputs([saved.flip(1)], [saved]))
    assert "where the saved model's are" in str(difference_in_outputs([saved.float()], [saved]))
    assert difference_in_outputs([], [saved]) == "the model returns 0 tensors, where the saved one returned 1"


class Odd(nn.Module):
    """A model whose forward pass has side effects."""

    seen: Tensor
    filled: Tensor | None

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what, self.calls, self.passes = what, 0, 0
        self.layer = nn.Embedding(4, 4, max_norm=0.1 if what == "norm" else None)
        self.register_buffer("seen", torch.zeros(1))
        self.register_buffer("filled", None)

    def get_extra_state(self) -> Any:
        return self.calls

    def set_extra_state(self, state: Any) -> None:
        self.calls = state

    def forward(self, x: Tensor) -> Tensor:
        if self.what == "written":
            self.seen.data += 1
        elif self.what == "replaced":
            self.seen = self.seen + 1
        elif self.what == "added":
            self.register_buffer("cache", x)
        elif self.what == "filled":
            self.filled = x if self.filled is None else self.filled
        elif self.what == "module":
            self.more = nn.Linear(1, 1)
        elif self.what == "resized":
            self.seen.resize_(3).fill_(1)
        elif self.what == "weights":
            self.layer.weight.data = self.layer.weight.data.clamp(0, 0.5)
        elif self.what == "extra":
            self.calls += 1
        elif self.what == "counter":
            self.passes += 1
        drawn = {"torch": torch.rand(1), "python": random.random()}.get(self.what, 0.0)
        return self.layer(x) + self.seen[:1] + self.calls + drawn + self.passes


def ask(model: nn.Module, seed: int) -> list[Tensor]:
    torch.manual_seed(seed)
    random.seed(seed)
    with torch.inference_mode():
        return [model(torch.tensor([1, 2]))]


@pytest.mark.parametrize(
    ("what", "compared", "changed"),
    [
        ("nothing", Comparability.ANYWHERE, ()),
        ("torch", Comparability.ON_HOST, ()),
        ("python", Comparability.ON_HOST, ()),
        ("counter", Comparability.NOWHERE, ()),
        ("written", Comparability.ANYWHERE, ("seen",)),
        ("replaced", Comparability.ANYWHERE, ("seen",)),
        ("added", Comparability.ANYWHERE, ("cache",)),
        ("extra", Comparability.ANYWHERE, ("_extra_state",)),
        ("norm", Comparability.ANYWHERE, ("layer.weight",)),
        ("filled", Comparability.ANYWHERE, ("filled",)),
        ("module", Comparability.ANYWHERE, ("more.bias", "more.weight")),
        ("resized", Comparability.ANYWHERE, ("seen",)),
        ("weights", Comparability.ANYWHERE, ("layer.weight",)),
    ],
)
def test_what_a_forward_pass_changes_is_known_and_undone(
    what: str, compared: Comparability, changed: tuple[str, ...]
) -> None:
    model = Odd(what)
    found = reference_outputs(model, lambda seed: ask(model, seed), 7)
    assert (found.compared, found.changed) == (compared, changed)
    assert model.filled is None
    if what != "norm":
        assert model.seen.tolist() == [0]
        assert model.calls == 0
        assert sorted(model.state_dict()) == ["_extra_state", "layer.weight", "seen"]
    before = model.layer.weight.detach().clone()
    state = ModelSnapshot(model, {"layer.weight", "seen"})
    again = ask(model, 7)
    state.restore()
    assert torch.equal(model.layer.weight, before)
    if compared != Comparability.NOWHERE:
        assert found.difference(again) is None
        assert found.difference([again[0] + 1])


def test_random_numbers_are_compared_on_the_host_alone() -> None:
    other, elsewhere = torch.zeros(2), torch.zeros(2, device="meta")
    for compared, on_host in ((Comparability.ON_HOST, True), (Comparability.NOWHERE, False)):
        kept = ReferenceOutputs([torch.ones(2)], compared)
        assert (kept.difference([other]) is not None) == on_host
        assert kept.difference([elsewhere]) is None
