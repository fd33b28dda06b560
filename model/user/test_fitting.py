"""Checkpoints whose names or memory differ from the model's: converted with a note, or refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from model.user.conversions import load
from model.user.source import Source, recognised

Change = Callable[[dict[str, Any]], dict[str, Any]]


class Net(nn.Module):
    """A block in a list, a recurrent layer, a tied head, and a norm that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 8)
        self.conv = nn.Conv2d(3, 8, 2)
        self.norm = nn.BatchNorm1d(8)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)) for _ in range(2)])
        self.rnn = nn.LSTM(8, 8)
        self.head = nn.Linear(8, 30, bias=False)
        self.head.weight = self.embed.weight


class Headed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = Net()


class Averaged(torch.optim.swa_utils.AveragedModel):
    def __init__(self) -> None:
        super().__init__(Net())


class OldNorm(nn.Module):
    """Names as `torch.nn.utils.weight_norm` has them, which warns now."""

    def __init__(self) -> None:
        super().__init__()
        self.weight_g, self.weight_v = nn.Parameter(torch.rand(4, 1)), nn.Parameter(torch.rand(4, 4))
        self.bias = nn.Parameter(torch.rand(4))


def new_norm() -> nn.Module:
    return parametrizations.weight_norm(nn.Linear(4, 4))


def build(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    def on_meta() -> nn.Module:
        with torch.device("meta"):
            return make()

    return on_meta


def found(path: Path, make: Callable[[], nn.Module] = Net) -> Source:
    return recognised(path, build(make)().state_dict(), None, build(make))


def saved(state_dict: object, folder: Path) -> Path:
    torch.save(state_dict, folder / "weights.pt")
    return folder / "weights.pt"


def loaded(source: Source, make: Callable[[], nn.Module] = Net) -> dict[str, Any]:
    model = make()
    load(model, source.state_dict(), converted=source.conversion.converted)
    return model.state_dict()


def require_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def between(wrapper: str) -> Change:
    return lambda state: {name.replace("blocks.0.", f"blocks.0.{wrapper}."): one for name, one in state.items()}


def without(*names: str, prefix: str = "") -> Change:
    return lambda state: {f"{prefix}{name}": one for name, one in state.items() if name not in names}


@pytest.mark.parametrize(
    ("change", "make", "said"),
    [
        (between("_orig_mod"), Net, ("names without '_orig_mod.'",)),
        (between("_checkpoint_wrapped_module"), Net, ("names without '_checkpoint_wrapped_module.'",)),
        (between("_fsdp_wrapped_module._orig_mod"), Net, ("names without '_fsdp_wrapped_module._orig_mod.'",)),
        (without("embed.weight", prefix="module."), Net, ("names without 'module.'",)),
        (without("head.weight"), Headed, ("names with 'body.'",)),
        (without(prefix="body."), Net, ("names without 'body.'",)),
        (lambda state: {**state, "epoch": 7, "name": "run"}, Net, ("without 'epoch', 'name'",)),
        (lambda state: {**state, "optimizer": {"rate": 0.1}}, Net, ("without 'optimizer'",)),
        # A second name of a tensor of which the model has but one.
        (lambda state: {**state, "lm.weight": state["head.weight"]}, Net, ("without 'lm.weight'",)),
        (
            without("norm.num_batches_tracked"),
            Net,
            ("'norm.num_batches_tracked' renamed or filled in by the model's own load_state_dict",),
        ),
        (
            without("norm.num_batches_tracked", prefix="module."),
            Net,
            (
                "names without 'module.'",
                "'norm.num_batches_tracked' renamed or filled in by the model's own load_state_dict",
            ),
        ),
    ],
)
def test_names_that_training_has_changed_are_taken_and_told(
    tmp_path: Path, change: Change, make: Callable[[], nn.Module], said: tuple[str, ...]
) -> None:
    torch.manual_seed(1)
    state = Net().state_dict()
    state["norm.num_batches_tracked"] -= state["norm.num_batches_tracked"]
    source = found(saved(change(dict(state)), tmp_path), make)
    assert source.conversion.notes == said
    assert source.note() == f"the state dict of weights.pt is saved as a checkpoint of its own: {'; '.join(said)}"
    assert not source.is_plain
    require_equal({name.removeprefix("body."): one for name, one in loaded(source, make).items()}, state)


def test_what_an_averaged_model_has_beside_is_left_out(tmp_path: Path) -> None:
    model = Averaged()
    source = found(saved(model.state_dict(), tmp_path))
    assert source.conversion.notes == ("names without 'module.'", "without 'n_averaged'")
    require_equal(loaded(source), model.module.state_dict())
    assert found(saved(model.state_dict(), tmp_path), Averaged).is_plain


def test_what_the_models_own_hooks_rename_is_asked_of_them(tmp_path: Path) -> None:
    state = OldNorm().state_dict()
    source = found(saved(state, tmp_path), new_norm)
    assert source.conversion.notes[0].endswith("and 1 more renamed or filled in by the model's own load_state_dict")
    made = loaded(source, new_norm)
    assert torch.equal(made["parametrizations.weight.original0"], state["weight_g"])
    assert torch.equal(made["parametrizations.weight.original1"], state["weight_v"])


def test_the_versions_of_modules_are_kept(tmp_path: Path) -> None:
    """A count is missing, as for torch, if the version of the module has one."""
    state = nn.Sequential(Net()).state_dict()
    del state["0.norm.num_batches_tracked"]
    with pytest.raises(
        ValueError, match=r"of another model, names without '0\.': norm\.num_batches_tracked is missing"
    ):
        found(saved(state, tmp_path))


class Filling(nn.Linear):
    """It fills in what is missing with what it was made with."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.setdefault(f"{prefix}weight", self.weight)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def test_weights_that_a_hook_makes_up_are_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="of another model: weight is missing"):
        found(saved({"bias": torch.rand(4)}, tmp_path), lambda: Filling(4, 4))


class Lenient(nn.Linear):
    """Is content with whatever it is given."""

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        return super().load_state_dict(state_dict, strict=False, assign=assign)


def test_a_model_that_is_content_with_less_is_not_taken_at_its_word(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="of another model: bias is missing; other is not in the model"):
        found(saved({"weight": torch.rand(4, 4), "other": torch.rand(4)}, tmp_path), lambda: Lenient(4, 4))


def test_a_weight_of_another_kind_is_no_value_beside_the_others(tmp_path: Path) -> None:
    state = nn.Linear(4, 4).state_dict()
    for other in (torch.rand(4, 4).to_sparse(), torch.rand(4, dtype=torch.complex64).conj()):
        with pytest.raises(ValueError, match="of another model: other is not in the model"):
            found(saved({**state, "other": other}, tmp_path), lambda: nn.Linear(4, 4))
        with pytest.raises(ValueError, match="of another model: weight is a"):
            found(saved({**state, "weight": other}, tmp_path), lambda: nn.Linear(4, 4))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without(prefix="lm."), None),
        (lambda state: {**without(prefix="lm.")(state), "value.bias": torch.ones(1)}, "value.bias is not in the model"),
        (without("conv.bias", prefix="lm."), "conv.bias is missing"),
        (
            lambda state: without(prefix="lm.")(state | {"conv.bias": torch.ones(9)}),
            "conv.bias has the shape [9], where the model has [8]",
        ),
        (lambda state: without(prefix="lm.")(state | {"conv.bias": 7}), "conv.bias is missing"),
    ],
)
def test_of_what_differs_beyond_a_prefix_both_are_told(tmp_path: Path, change: Change, said: str | None) -> None:
    path = saved(change(dict(Net().state_dict())), tmp_path)
    if said is None:
        assert found(path).conversion.notes == ("names without 'lm.'",)
        return
    with pytest.raises(ValueError, match=r"is of another model, names without 'lm\.'") as caught:
        found(path)
    assert f": {said}; " in str(caught.value)


def test_a_checkpoint_that_fits_as_it_lies_asks_nothing_of_the_model(tmp_path: Path) -> None:
    """A large model that cannot be built on meta takes memory."""
    state = Net().state_dict()
    assert recognised(saved(state, tmp_path), state, None, lambda: pytest.fail("it was built")).is_plain


def test_what_is_said_identifies_a_source(tmp_path: Path) -> None:
    """A copy that was made in another way is another one."""
    source = found(saved(without(prefix="module.")(dict(Net().state_dict())), tmp_path))
    assert source != replace(source, conversion=replace(source.conversion, names=source.conversion.names[::-1]))
