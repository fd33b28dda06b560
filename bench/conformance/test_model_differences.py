import torch
from torch import nn

from bench.conformance.blueprint import Blueprint, PlaceName, Stored
from bench.conformance.model_differences import differences

CPU, CUDA = torch.device("cpu"), torch.device("cuda")

TWO = Blueprint((Stored(), Stored(parameter=False)), (PlaceName("block.weight"), PlaceName("block.scale", 1)))


def test_the_saved_model_differs_in_nothing() -> None:
    assert differences(TWO.saved(), TWO.saved(), CPU) == []


def test_a_tensor_on_another_device_is_named() -> None:
    """Seen where there is no other device: everything is on the wrong one."""
    found = differences(TWO.saved(), TWO.saved(), CUDA)
    assert [(d.check, str(d)) for d in found] == [
        ("device", "block.weight is on cpu, not on cuda"),
        ("device", "block.scale is on cpu, not on cuda"),
    ]


def test_a_plain_attribute_that_stayed_on_meta_is_named() -> None:
    model = TWO.saved()
    block = model.get_submodule("block")
    block.table = torch.empty(3, device="meta")
    [found] = differences(TWO.saved(), model, CPU)
    assert str(found) == "block.table is still on meta"


def test_a_lost_name_and_a_new_one_are_told() -> None:
    model = TWO.saved()
    block = model.get_submodule("block")
    del block.weight
    block.register_parameter("bias", None)
    assert [str(d) for d in differences(TWO.saved(), model, CPU)] == [
        "block.weight is not in the state dict",
        "block.weight is gone, was a parameter",
        "block.bias is no parameter, was not there",
    ]


def test_memory_that_two_tensors_came_to_share_is_told() -> None:
    plan = Blueprint((Stored(), Stored()), (PlaceName("first"), PlaceName("second", 1)))
    saved, loaded = plan.saved(), plan.saved()
    for model in (saved, loaded):
        model.load_state_dict({"first": torch.ones(2), "second": torch.ones(2)})
    loaded.second = nn.Parameter(loaded.get_parameter("first").detach())
    [found] = differences(saved, loaded, CPU)
    assert (found.check, str(found)) == ("memory", "second was by itself, and is in the memory of first")


def test_names_that_were_one_tensor_and_are_in_one_memory_still_are_told_apart_from_those_that_are_not() -> None:
    plan = Blueprint((Stored(),), (PlaceName("first"), PlaceName("second")))
    saved, loaded = plan.saved(), plan.saved()
    loaded.second = nn.Parameter(loaded.get_parameter("first").detach())
    assert [found.check for found in differences(saved, loaded, CPU)] == ["ties"]
    loaded.second = nn.Parameter(loaded.get_parameter("first").detach().clone())
    assert [found.check for found in differences(saved, loaded, CPU)] == ["ties", "sharing"]
