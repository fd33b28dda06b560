import pytest
import torch
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor

from bench.strategies.reading.fit import form, require_fit, require_plain


def test_a_tensor_that_is_made_of_others_is_no_plain_one() -> None:
    """Though it says that it has the same dtype, shape and strides."""
    plain, twin = torch.ones(2), TwoTensor(torch.ones(2), torch.ones(2))
    assert (plain.dtype, plain.shape, plain.stride()) == (twin.dtype, twin.shape, twin.stride())
    assert form({"weight": twin}) != form({"weight": plain})
    assert form({"weight": twin}) == form({"weight": TwoTensor(torch.zeros(2), torch.zeros(2))})
    gapped = TwoTensor(torch.ones(4)[::2], torch.ones(4)[::2])
    assert {name for name, *_ in form({"weight": twin}) ^ form({"weight": gapped})} == {"weight.a", "weight.b"}
    model = nn.Linear(2, 2)
    require_plain(model)
    model.register_buffer("twin", twin)
    with pytest.raises(ValueError, match=r"^\['twin'\] are made of other tensors"):
        require_plain(model)


def test_what_is_missing_or_of_another_dtype_fits_only_if_that_is_asked_for() -> None:
    model, saved = nn.Linear(2, 2), {"weight": torch.ones(2, 2, dtype=torch.bfloat16)}
    require_fit("here", model, saved, torch.float32, {"bias"})
    for dtype, missing in ((None, {"bias"}), (torch.float32, ()), (torch.float32, {"weight"})):
        with pytest.raises(ValueError, match=r"^here and the model differ in (names, )?dtypes"):
            require_fit("here", model, saved, dtype, missing)
    with pytest.raises(ValueError, match=r"\['weight'\]"):
        require_fit("here", model, {"weight": torch.ones(2, 2, dtype=torch.int32)}, torch.float32, {"bias"})


def test_what_the_user_has_to_change_is_said() -> None:
    model = nn.Linear(2, 1)
    half = {name: value.bfloat16() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"^here and the model differ in dtypes: .*; dtype= casts what is floating"):
        require_fit("here", model, half)
    with pytest.raises(ValueError, match=r"^here holds \['epoch'\], which are no tensors: save model\.state_dict\(\)"):
        require_fit("here", model, {**model.state_dict(), "epoch": 3})
