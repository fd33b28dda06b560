import weakref

import pytest
import torch
from torch import nn

from bench.strategies.reading.assign import allocate, assign, cast, move_others, others, weights
from bench.strategies.reading.skeleton import skeleton


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(4, 2), nn.Linear(2, 4, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("angles", torch.arange(2.0), persistent=False)
        self.register_buffer("mean", torch.zeros(2))


def test_weights_are_in_the_order_of_the_state_dict_and_each_there_once() -> None:
    model = Tied()
    assert list(weights(model)) == ["mean", "embed.weight"]
    assert list(others(model)) == ["angles"]


def test_a_weight_that_is_held_by_a_weak_reference_is_replaced_under_all_names() -> None:
    model = Tied()
    held = weakref.ref(model.embed.weight)
    before = held()
    assert before is not None
    assign(model, [("embed.weight", torch.ones(4, 2))])
    assert model.embed.weight is model.head.weight is not before
    assert model.embed.weight.requires_grad
    assert model.head.weight.tolist() == [[1.0, 1.0]] * 4


def test_other_weights_stay_themselves_to_an_optimizer() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.GRU(2, 2))
    before = list(model.parameters())
    assign(model, ((name, torch.ones_like(one)) for name, one in weights(model).items()))
    assert all(one is other for one, other in zip(model.parameters(), before, strict=True))
    assert model[1](torch.ones(1, 1, 2))[0].isfinite().all()


def test_a_skeleton_is_allocated_in_a_dtype_but_for_what_no_checkpoint_has() -> None:
    model = skeleton(Tied)
    allocate(model, "cpu", torch.float16)
    move_others(model, "cpu")
    assert model.embed.weight is model.head.weight
    assert (model.embed.weight.dtype, model.mean.dtype, model.angles.dtype) == (
        torch.float16,
        torch.float16,
        torch.float32,
    )
    assert model.angles.tolist() == [0.0, 1.0]


def test_what_is_cast_shares_the_memory_that_it_shared() -> None:
    whole = torch.arange(6.0)
    saved = {"one": whole[:4], "two": whole[4:].view(1, 2), "all": whole, "count": torch.tensor(3), "_extra_state": 1}
    found = cast(saved, torch.bfloat16, "cpu")
    assert list(found) == list(saved)
    assert found["one"].untyped_storage().data_ptr() == found["all"].untyped_storage().data_ptr()
    assert found["two"].tolist() == [[4.0, 5.0]]
    assert (found["all"].dtype, found["count"].dtype) == (torch.bfloat16, torch.int64)
    assert found["count"].data_ptr() == saved["count"].data_ptr()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"^bits shares memory with a tensor of another dtype"):
        cast({"all": whole, "bits": whole.view(torch.int32)}, torch.bfloat16, "cpu")
