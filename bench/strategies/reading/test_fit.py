import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing._internal.two_tensor import TwoTensor

from bench.strategies.reading.fit import Unfilled, form, require_equal, require_persistent, require_plain


class Filling(nn.Module):
    """Fills in every way, on the device in force and on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Conv2d(2, 3, 3), nn.Embedding(5, 4, 0))
        self.norm = nn.BatchNorm1d(3)
        self.weight = nn.Parameter(torch.empty(4, 4))
        nn.init.orthogonal_(tensor=self.weight)
        nn.init.trunc_normal_(self.weight)
        self.register_buffer("mask", torch.ones(4, 4).triu_(1).mul_(2))
        self.real = torch.empty(3, device="cpu").fill_(2.0)
        self.drawn = nn.init.constant_(torch.empty(3, device="cpu"), 3.0)
        self.zeroed = torch.full((3,), 7.0, device="cpu")
        self.zeroed[0].zero_()


def test_a_skeleton_that_is_not_filled_is_the_same_skeleton() -> None:
    with torch.device("meta"):
        filled = Filling()
        with Unfilled():
            unfilled = Filling()
    assert form(unfilled.state_dict()) == form(filled.state_dict())
    assert list(unfilled.state_dict()) == list(filled.state_dict())
    assert all(tensor.is_meta for tensor in unfilled.state_dict().values())
    wanted = [(name, type(p), p.requires_grad) for name, p in filled.named_parameters()]
    assert [(name, type(p), p.requires_grad) for name, p in unfilled.named_parameters()] == wanted


def test_what_is_no_skeleton_is_filled() -> None:
    with torch.device("meta"), Unfilled():
        model = Filling()
    assert model.real.tolist() == [2.0] * 3
    assert model.drawn.tolist() == [3.0] * 3
    assert model.zeroed.tolist() == [0.0, 7.0, 7.0]
    with Unfilled():
        assert torch.ones(2, 2).triu_(1).tolist() == [[0.0, 1.0], [0.0, 0.0]]
        assert nn.init.zeros_(tensor=torch.ones(2)).tolist() == [0.0, 0.0]


def test_a_tensor_that_is_made_of_others_is_no_plain_one() -> None:
    """Though it says that it has the same dtype, shape and strides."""
    plain, twin = torch.ones(2), TwoTensor(torch.ones(2), torch.ones(2))
    assert (plain.dtype, plain.shape, plain.stride()) == (twin.dtype, twin.shape, twin.stride())
    with pytest.raises(ValueError, match=r"\['weight', 'weight\.a', 'weight\.b'\]"):
        require_equal("here", form({"weight": plain}), form({"weight": twin}))
    require_equal("here", form({"weight": twin}), form({"weight": TwoTensor(torch.zeros(2), torch.zeros(2))}))
    gapped = TwoTensor(torch.ones(4)[::2], torch.ones(4)[::2])
    with pytest.raises(ValueError, match=r"ties: \['weight\.a', 'weight\.b'\]"):
        require_equal("here", form({"weight": twin}), form({"weight": gapped}))
    model = nn.Linear(2, 2)
    require_plain(model)
    model.register_buffer("twin", twin)
    with pytest.raises(ValueError, match=r"^\['twin'\] are made of other tensors"):
        require_plain(model)


@pytest.mark.parametrize("held", [lambda t: t, lambda t: [t], lambda t: {"a": t}], ids=["it", "list", "dict"])
def test_a_tensor_that_is_only_an_attribute_is_lost_on_meta(held: Callable[[Tensor], object]) -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.LSTM(2, 2), nn.Linear(2, 2))
        table = torch.ones(2)
    require_persistent(model)
    vars(model[1])["table"] = held(table)
    with pytest.raises(ValueError, match=re.escape("['1.table'] are not persistent")):
        require_persistent(model)
    vars(model[1])["table"] = held(torch.ones(2))
    require_persistent(model)
