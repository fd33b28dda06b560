from collections.abc import Callable

import pytest
import torch
from torch import nn

from bench.selftest.decoder import Decoder
from model.parallel.blocks import blocks, blocks_in_words, tied_across
from model.parallel.division import Division


class Composite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])


class Other(Composite):
    pass


class Holder(nn.Module):
    def __init__(self, **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)


CASES: list[tuple[Callable[[], nn.Module], list[str]]] = [
    (Decoder, ["blocks.0", "blocks.1", "blocks.2"]),
    # Lists within blocks are parts of them.
    (lambda: Holder(encoder=nn.ModuleList([Composite(), Composite()])), ["encoder.0", "encoder.1"]),
    (
        lambda: Holder(inner=Holder(layers=nn.Sequential(Composite(), Composite()))),
        ["inner.layers.0", "inner.layers.1"],
    ),
    # Several lists, and several classes in one that each repeat.
    (
        lambda: Holder(a=nn.ModuleList([Composite(), Other(), Composite(), Other()]), b=nn.ModuleList([Composite()])),
        ["a.0", "a.1", "a.2", "a.3", "b.0"],
    ),
    # What does not repeat is no block.
    (lambda: Holder(a=nn.Sequential(Composite(), Other(), Composite())), ["a.0", "a.2"]),
    (lambda: Holder(a=nn.ModuleList([Composite(), Other()])), []),
    # Layers of PyTorch's own are parts of a block.
    (lambda: nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)), []),
    (lambda: nn.LSTM(2, 2, num_layers=2), []),
    # Stages of blocks, and blocks without weights.
    (lambda: Holder(stages=nn.ModuleList([nn.Sequential(Composite(), Composite())])), ["stages.0.0", "stages.0.1"]),
    (lambda: Holder(acts=nn.ModuleList([nn.Sequential(nn.ReLU()), nn.Sequential(nn.ReLU())])), []),
]


@pytest.mark.parametrize(("build", "expected"), CASES)
def test_blocks_are_the_outermost_modules_that_repeat(build: Callable[[], nn.Module], expected: list[str]) -> None:
    assert list(blocks(build())) == expected


def test_a_class_may_be_named() -> None:
    model = Holder(a=nn.ModuleList([Composite(), Other()]), b=Other())
    assert list(blocks(model, ("Other",))) == ["a.1", "b"]
    assert list(blocks(model, ("Composite", "Other"))) == ["a.0", "a.1", "b"]
    assert blocks(model, ("Linears",)) == {}


def test_they_are_told_in_words() -> None:
    assert blocks_in_words(Decoder()) == "Block x 3"
    assert blocks_in_words(nn.Linear(2, 2)) == ""
    assert blocks_in_words(Holder(a=nn.ModuleList([Composite(), Other(), Composite(), Other()]))) == (
        "Composite x 2, Other x 2"
    )


def test_a_tensor_of_two_blocks_is_found() -> None:
    model = Holder(a=nn.ModuleList([Composite(), Composite()]), head=nn.Linear(2, 2))
    assert tied_across(model, blocks(model)) is None
    model.get_submodule("a.1.layer.0").weight = model.get_parameter("a.0.layer.1.weight")
    assert tied_across(model, blocks(model)) == ("a.0.layer.1.weight", "a.1.layer.0.weight")
    # Within a block, and outside of all, it stays one.
    assert tied_across(Decoder(), blocks(Decoder())) is None
    model = Holder(a=nn.ModuleList([Composite(), Composite()]), head=nn.Linear(2, 2))
    model.get_submodule("head").weight = model.get_parameter("a.0.layer.1.weight")
    assert tied_across(model, blocks(model)) == ("a.0.layer.1.weight", "head.weight")


def scalar() -> nn.Module:
    model = Decoder()
    model.scale = nn.Parameter(torch.tensor(1.0))
    return model


def transposed() -> nn.Module:
    model = Decoder()
    model.extra = nn.Parameter(torch.ones(3, 2).t())
    return model


def mixed() -> nn.Module:
    model = Decoder()
    model.get_submodule("blocks.1.norm").to(torch.bfloat16)
    return model


def frozen() -> nn.Module:
    model = mixed()
    model.get_submodule("blocks.1.norm").requires_grad_(requires_grad=False)
    return model


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (Decoder, None),
        (frozen, None),
        (scalar, None),
        (transposed, "FSDP2 shards contiguous tensors only, and extra has the strides (1, 2)"),
        (
            mixed,
            "FSDP2 gathers a block in one dtype, and one has blocks.1.norm.weight in bfloat16 and "
            "blocks.1.q_proj.weight in float32; give it one with --cast bfloat16",
        ),
    ],
)
def test_a_model_that_cannot_be_sharded_is_refused_in_a_line(
    build: Callable[[], nn.Module], expected: str | None
) -> None:
    assert Division("fsdp").objection(build(), 2) == expected


def test_a_cast_gives_a_block_one_dtype() -> None:
    assert Division("fsdp").objection(mixed(), 2, one_dtype=True) is None


def test_ties_across_blocks_are_refused() -> None:
    model = Decoder()
    model.get_submodule("blocks.2.q_proj").weight = model.get_parameter("blocks.0.q_proj.weight")
    assert Division("fsdp").objection(model, 2) == (
        "FSDP2 would untie blocks.0.q_proj.weight and blocks.2.q_proj.weight, which are one tensor in two blocks; name "
        "with --wrap a class that has both in it, or neither"
    )
    # Nothing is a block then.
    assert Division("fsdp", wrap=("Embedding",)).objection(Decoder(), 2) is not None


def test_a_scalar_stays_whole() -> None:
    assert "scale" not in Division("fsdp").dimensions(scalar())
    assert not any("scale" in unit for unit in Division("fsdp").units(scalar()))
