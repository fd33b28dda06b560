"""Tensors that a checkpoint lacks: initial values pass, and uninitialised memory does not."""

import json
from collections.abc import Callable
from dataclasses import asdict

import pytest
import torch
from torch import Tensor, nn

from bench.conformance.poison import poisoned
from model.values.initial_values import BLOCK, InitialValues, initial_values, uninitialised


class Head(nn.Module):
    """Heads and adapters as a library initialises them: otherwise than `reset_parameters` of the modules."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(64, 8)
        nn.init.normal_(self.out.weight, std=0.02)
        nn.init.zeros_(self.out.bias)
        self.norm = nn.BatchNorm1d(8)
        self.adapter = nn.Parameter(torch.randn(4, 16) * 0.1)
        self.scale = nn.Parameter(torch.randn(()))
        self.register_buffer("mask", torch.full((8, 8), float("-inf")).triu(1))
        self.register_buffer("places", torch.arange(20))
        self.register_buffer("none", torch.empty(0))
        self.turned = nn.Parameter(torch.randn(8, dtype=torch.complex64))


NAMES = tuple(Head().state_dict())


def wrong(model: nn.Module, names: tuple[str, ...] = NAMES) -> dict[str, str]:
    return dict(uninitialised(model, initial_values(Head(), names)))


def test_what_the_factory_makes_passes_each_time() -> None:
    for _ in range(20):
        assert wrong(Head()) == {}


def test_what_reset_parameters_makes_passes() -> None:
    model = Head()
    model.out.reset_parameters()
    model.norm.reset_parameters()
    assert wrong(model) == {}


def test_it_is_kept_in_a_manifest() -> None:
    known = initial_values(Head(), NAMES)
    again = json.loads(json.dumps({name: [asdict(one) for one in values] for name, values in known.items()}))
    assert dict(uninitialised(Head(), {name: [InitialValues(**one) for one in again[name]] for name in again})) == {}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_what_is_cast_passes(dtype: torch.dtype) -> None:
    model = Head()
    del model.turned  # It would be cast to real numbers.
    assert wrong(model.to(dtype), tuple(model.state_dict())) == {}


def test_uninitialised_memory_does_not_pass() -> None:
    """All but what has no values: of a scalar NaN is told too."""
    model = Head()
    with poisoned():
        model.to_empty(device="cpu")
    assert wrong(model).keys() == {*NAMES} - {"none"}
    assert wrong(model)["out.weight"].startswith(
        "is not in the checkpoint, and was not initialised: it has values that are not finite, where the model starts "
        "with -0."
    )


def leftover(tensor: Tensor) -> Tensor:
    """Memory as an allocator leaves it: its own data at the start, and zeros behind."""
    found = torch.zeros_like(tensor)
    found.flatten()[:4] = 1e-20
    return found


@pytest.mark.parametrize(
    "damage",
    [
        torch.zeros_like,
        torch.ones_like,
        leftover,
        lambda tensor: tensor * 100,
        lambda tensor: tensor / 100,
        lambda tensor: torch.full_like(tensor, 0.01),
        lambda tensor: torch.full_like(tensor, float("nan")),
        lambda tensor: tensor.index_fill(0, torch.tensor(3), float("nan")),
        lambda tensor: tensor.index_fill(0, torch.tensor(3), 1e30),
    ],
)
@pytest.mark.parametrize("name", ["out.weight", "adapter"])
def test_what_is_not_random_as_the_start_is_does_not_pass(name: str, damage: Callable[[Tensor], Tensor]) -> None:
    model = Head()
    tensor = model.state_dict()[name]
    tensor.copy_(damage(tensor))
    assert wrong(model).keys() == {name}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("out.bias", 0.5, "has 0.5, where the model starts with 0 or -0."),
        ("norm.weight", 0.0, "has 0, where the model starts with 1"),
        ("norm.running_var", 0.0, "has 0, where the model starts with 1"),
        ("norm.num_batches_tracked", 7, "has 7, where the model starts with 0"),
        ("places", 0, "has 0, where the model starts with 0 to 19, "),
        ("mask", 0.0, "has 0, where the model starts with values that are not finite"),
        ("scale", 0.0, "has 0, where the model starts with "),
        ("scale", 1e-40, "has 1e-40, where the model starts with "),
    ],
)
def test_a_constant_that_is_not_the_start_does_not_pass(name: str, value: float, said: str) -> None:
    model = Head()
    model.state_dict()[name].fill_(value)
    found = wrong(model)
    assert found.keys() == {name}
    assert said in found[name]


def test_zeros_have_no_sign_in_words() -> None:
    assert InitialValues.of(torch.tensor([-0.0, 0.0])).summary == InitialValues.of(-torch.zeros(2)).summary == "0"


def test_a_large_tensor_is_looked_at_in_full() -> None:
    values = torch.rand(2 * BLOCK + 10)
    values[-1] = -3
    values[BLOCK] = 5
    found = InitialValues.of(values)
    assert (found.count, found.low, found.high) == (len(values), -3, 5)
    assert found.rms == pytest.approx(values.double().square().mean().sqrt().item())
    assert InitialValues.of(values.flip(0)).sha256 != found.sha256


def test_what_a_module_raises_when_it_is_reset_is_no_matter() -> None:
    class Raising(nn.Linear):
        def reset_parameters(self) -> None:
            if hasattr(self, "made"):
                raise NotImplementedError
            super().reset_parameters()
            self.made = True

    assert len(initial_values(Raising(4, 4), ["weight"])["weight"]) == 1


def test_others_draw_the_numbers_that_they_would_have_drawn() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    state = torch.random.get_rng_state()
    assert len(initial_values(model, ["0.weight"])["0.weight"]) == 2
    assert torch.equal(torch.random.get_rng_state(), state)
