"""Tests of tensors whose memory differs in file and model: strides, shared storages and ties."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model.examine.safetensors_file import file_parts
from model.layouts.files import RawContent, save_plain
from model.user.test_fitting import Change, Net, found, loaded, require_equal, saved, without


def flattened(state: dict[str, Any]) -> dict[str, Any]:
    """One buffer has all weights of a recurrent layer, as cuDNN needs it."""
    names = [name for name in state if name.startswith("rnn.")]
    buffer, start = torch.cat([state[name].flatten() for name in names]), 0
    for name in names:
        state[name], start = (
            buffer[start : start + state[name].numel()].view_as(state[name]),
            start + state[name].numel(),
        )
    return state


def within(rows: int) -> Change:
    def change(state: dict[str, Any]) -> dict[str, Any]:
        large = torch.zeros(rows, 8)
        large[:30] = state["embed.weight"]
        return state | dict.fromkeys(("embed.weight", "head.weight"), large[:30])

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            flattened,
            "one storage for tensors that have their own in the model: "
            "'rnn.weight_hh_l0', 'rnn.bias_ih_l0', 'rnn.bias_hh_l0'",
        ),
        (
            lambda state: {
                name: one.to(memory_format=torch.channels_last) if one.ndim == 4 else one for name, one in state.items()
            },
            "strides other than the model's: 'conv.weight'",
        ),
        (within(100_000), "weights.pt holds 3.2 MB, of which 4,520 bytes are the model's: save clones"),
        (within(31), "weights.pt holds 4,552 bytes, of which 4,520 bytes are the model's: save clones"),
        (lambda state: state | {"norm.bias": torch.ones(1).expand(8)}, "strides other than the model's: 'norm.bias'"),
        (
            lambda state: state | {"norm.bias": state["norm.weight"]},
            "one storage for tensors that have their own in the model: 'norm.bias'",
        ),
    ],
)
def test_memory_that_is_not_the_models_is_loaded_by_a_copy(tmp_path: Path, change: Change, said: str) -> None:
    state = change(dict(Net().state_dict()))
    source = found(saved(state, tmp_path))
    assert source.conversion.notes == (said,)
    assert not source.is_plain
    made = loaded(source)
    require_equal(made, state)
    assert made["embed.weight"].data_ptr() == made["head.weight"].data_ptr()


def channels_last() -> nn.Module:
    conv = nn.Conv2d(3, 8, 2)
    conv.weight.data = conv.weight.data.to(memory_format=torch.channels_last)
    return conv


def test_strides_that_safetensors_has_not_are_made_in_a_copy(tmp_path: Path) -> None:
    state = nn.Conv2d(3, 8, 2).state_dict()
    save_plain(RawContent(file_parts(state)), tmp_path / "weights.safetensors")
    source = found(tmp_path / "weights.safetensors", channels_last)
    assert source.conversion.notes == ("strides other than the model's: 'weight'",)
    assert (source.layout, source.measured_layout) == ("safetensors", "torch")
    assert found(tmp_path / "weights.safetensors", lambda: nn.Conv2d(3, 8, 2)).is_plain


class Ties(nn.Module):
    """One tensor with two names, after one by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.free, self.first = nn.Parameter(torch.rand(4, 4)), nn.Parameter(torch.rand(4, 4))
        self.second = self.first


FLAT = torch.rand(48)


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (FLAT[16:32].view(4, 4), FLAT[16:32].view(4, 4), None),
        (FLAT[16:32].view(4, 4), FLAT[32:48].view(4, 4), "is at another place of the memory that it shares with first"),
        (
            FLAT[16:32].view(4, 4),
            FLAT[16:32].view(4, 4).T,
            "is at another place of the memory that it shares with first",
        ),
        (
            FLAT[16:32].view(4, 4),
            torch.rand(4, 4),
            "has its own memory, where the model ties it to fir",
        ),
        (
            torch.rand(4, 4),
            FLAT[:16].view(4, 4),
            "has its own memory, where the model ties it to first",
        ),
    ],
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_names_that_are_tied_in_the_model_are_never_merged(
    tmp_path: Path, prefix: str, first: Tensor, second: Tensor, said: str | None
) -> None:
    state = {"free": FLAT[:16].view(4, 4), "first": first, "second": second}
    path = saved(without(prefix=prefix)(state), tmp_path)
    if said is None:
        require_equal(loaded(found(path, Ties), Ties), state)
        return
    with pytest.raises(ValueError, match=said):
        found(path, Ties)
