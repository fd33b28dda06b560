import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from bench.conformance.blueprint import A_TENSOR, GAPPED, Blueprint, PlaceName, Stored, View
from bench.conformance.generators import FEATURES, OTHER_DTYPES, blueprints
from bench.conformance.model_differences import differences
from bench.conformance.modules import named_tensors
from bench.conformance.poison import payload, poisoned
from bench.conformance.specimens import ManyTensors

CPU = torch.device("cpu")
DTYPES = ("float32", *OTHER_DTYPES)

TIED = Blueprint(
    (Stored(shape=(2, 3), order="transposed", requires_grad=False), Stored("bool", parameter=False), View(0)),
    (
        PlaceName("head.weight"),
        PlaceName("embedding.weight"),
        PlaceName("mask", 1, persistent=False),
        PlaceName("seen", 2),
        PlaceName("b", None),
    ),
    extra_state=(("head", {"step": 3}),),
    evaluating=("head",),
)


def poison(dtype: torch.dtype) -> Tensor:
    with poisoned():
        return torch.empty(1, dtype=dtype).view(torch.uint8)


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("name", [name for name in DTYPES if name != "bool"])
def test_no_saved_value_is_that_of_memory_nobody_wrote(name: str, special: bool) -> None:
    dtype = getattr(torch, name)
    values = payload(dtype, 1000, torch.Generator().manual_seed(0), special=special)
    assert values.dtype == dtype
    rows = values.view(torch.uint8).view(1000, -1)
    assert not (rows == poison(dtype)).all(1).any()
    assert len({tuple(row) for row in rows.tolist()}) > 2


@pytest.mark.parametrize("count", [1, 2, 3])
def test_of_booleans_the_first_and_the_last_are_not(count: int) -> None:
    for seed in range(20):
        values = payload(torch.bool, count, torch.Generator().manual_seed(seed), special=False)
        assert not values[0]
        assert not values[-1]


def test_special_values_are_those_that_arithmetic_treats_apart() -> None:
    values = payload(torch.float32, 60, torch.Generator(), special=True)
    assert values.isnan().any()
    assert values.isinf().any()
    assert ((values == 0) & values.signbit()).any()
    assert ((values != 0) & (values.abs() < torch.finfo(torch.float32).tiny)).any()
    signalling = (values.view(torch.int32) & 0x7FC00000) == 0x7F800000
    assert (signalling & values.isnan()).any()


def test_uninitialised_memory_is_poisoned_in_the_block_only() -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    with poisoned():
        assert torch.empty(3).isnan().all()
        assert torch.empty_like(torch.ones(2, dtype=torch.int8)).eq(127).all()
        assert torch.nn.Linear(2, 2, device="meta").to_empty(device="cpu").weight.isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_blueprint_becomes_the_model_that_it_describes() -> None:
    model = TIED.saved()
    assert list(model.state_dict()) == ["seen", "head.weight", "head._extra_state", "embedding.weight"]
    weight, seen, mask = (model.get_parameter("head.weight"), model.get_buffer("seen"), model.get_buffer("mask"))
    assert weight is model.get_parameter("embedding.weight")
    assert (weight.stride(), weight.requires_grad) == ((1, 2), False)
    assert seen.untyped_storage() is weight.untyped_storage()
    assert mask.tolist() == [False, False]
    assert model.b is None
    head, unloaded = (made.get_submodule("head") for made in (model, TIED.build()))
    assert (head.extra, unloaded.extra) == ({"step": 3}, "not loaded")
    assert (model.training, head.training) == (True, False)


def test_a_blueprint_tells_itself_in_a_line() -> None:
    assert str(TIED) == (
        "head.weight = embedding.weight: frozen transposed parameter float32[2, 3]; mask (not persistent): buffer "
        "bool[2]; seen: buffer that sees all of head.weight; b: None; head: extra state {'step': 3}; head: evaluating"
    )


@given(blueprints(FEATURES))
def test_every_specimen_can_be_had_twice_and_as_a_skeleton(blueprint: Blueprint) -> None:
    """A model compared with itself differs in nothing, so any difference was loaded wrongly."""
    assert differences(blueprint.saved(), blueprint.saved(), CPU) == []
    with torch.device("meta"):
        skeleton = blueprint.build()
    assert all(tensor.is_meta for _, tensor in named_tensors(skeleton))
    assert list(skeleton.state_dict()) == list(blueprint.saved().state_dict())


@example(Blueprint((Stored("bool", requires_grad=False), View(0, whole=False)), (PlaceName("a"), PlaceName("tail", 1))))
@given(blueprints(FEATURES))
def test_nothing_that_is_to_be_loaded_is_there_before(blueprint: Blueprint) -> None:
    with poisoned():
        built = blueprint.build()
    saved = dict(named_tensors(blueprint.saved()))
    fixed = {name.path for name in blueprint.names if not name.persistent}
    for name, tensor in named_tensors(built):
        if tensor.numel() and name not in fixed:
            bits = [
                t.detach().clone(memory_format=torch.contiguous_format).view(-1).view(torch.uint8)
                for t in (tensor, saved[name])
            ]
            assert not torch.equal(*bits), name


def test_a_crowd_has_thousands_and_one_huge() -> None:
    model = ManyTensors(1000, 4096).saved()
    assert sorted(p.numel() for p in model.parameters()) == [1] * 1000 + [4096]


def test_a_tensor_of_extra_state_is_one() -> None:
    plan = Blueprint((Stored(),), (PlaceName("weight"),), extra_state=(("", A_TENSOR),))
    assert plan.saved().state_dict()["_extra_state"].tolist() == [1.5, 2.5]
    assert plan.suspects() == {"_extra_state"}


def test_a_tensor_that_skips_elements_may_be_refused() -> None:
    """A copy to a device leaves those out, so a strategy that copies has to refuse."""
    plan = Blueprint((Stored(order=GAPPED), Stored()), (PlaceName("gapped"), PlaceName("tied"), PlaceName("weight", 1)))
    assert plan.suspects() == {"gapped", "tied"}


@given(st.data())
def test_each_property_is_drawn_with_what_it_is_about(data: st.DataObject) -> None:
    def one(*features: str) -> Blueprint:
        return data.draw(blueprints(set(features), features[0]))

    tied = one("ties", "dtypes")
    assert [name.tensor for name in tied.names].count(0) > 1
    assert any(isinstance(tensor, View) for tensor in one("views").tensors)
    assert not all(name.persistent for name in one("nonpersistent").names)
    assert one("extra_state").extra_state
    for feature, order in (("strides", {"transposed", "channels_last"}), ("gaps", {"every second"})):
        first = one(feature).tensors[0]
        assert isinstance(first, Stored)
        assert first.order in order
    for feature, trait in (("dtypes", "dtype"), ("empty", "shape"), ("values", "special"), ("frozen", "requires_grad")):
        assert getattr(one(feature).tensors[0], trait) != getattr(Stored(), trait)
