"""Checkpoints with a part of a model, with more than it, or with other names: the options convert them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from model.conftest import refusal
from model.layouts.files import save_plain
from model.layouts.layouts import LAYOUTS
from model.user.conversion_request import ConversionRequest
from model.user.conversions import load
from model.user.renaming import rule
from model.user.source import OTHERWISE, Source, recognised

Build = Callable[[], nn.Module]


class Body(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.norm = nn.BatchNorm1d(4)


class Headed(nn.Module):
    """A body with a head of a few classes, and with one that is tied."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.body = Body()
        self.head = nn.Linear(4, classes)
        self.again = nn.Module()
        self.again.weight = self.head.weight


def ten_classes() -> nn.Module:
    return Headed(10)


def found(path: Path, make: Build = Headed, *, renames: Any = (), missing: Any = (), surplus: Any = ()) -> Source:
    def on_meta() -> nn.Module:
        with torch.device("meta"):
            return make()

    wanted = ConversionRequest(tuple(map(rule, renames)), tuple(missing), tuple(surplus))
    return recognised(path, on_meta().state_dict(), None, on_meta, wanted)


def saved(folder: Path, make: Build = Headed, change: Callable[[str], str | None] = str, layout: str = "torch") -> Path:
    named = {change(name): value for name, value in make().state_dict().items()}
    state_dict = {name: value for name, value in named.items() if name is not None}
    LAYOUTS[layout].save(state_dict, folder, save_plain)
    return folder / LAYOUTS[layout].entrance


def without_head(name: str) -> str | None:
    return None if name.startswith(("head", "again")) else name


HEAD = ("head.weight", "head.bias", "again.weight")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_may_be_missing_is_named_and_the_rest_is_loaded_as_it_lies(tmp_path: Path, layout: str) -> None:
    path = saved(tmp_path, change=without_head, layout=layout)
    source = found(path, missing=["head.*", "again.*"])
    assert source.is_plain
    assert source.conversion.missing == HEAD
    assert source.note() == (
        "the model keeps what it starts with in 'head.weight', 'head.bias', 'again.weight', and its outputs are not "
        "compared"
    )
    model = Headed()
    before = model.head.weight.clone()
    load(model, source.state_dict(), converted=False, missing=source.conversion.missing)
    assert torch.equal(model.head.weight, before)
    assert torch.equal(model.state_dict()["body.encoder.0.weight"], source.state_dict()["body.encoder.0.weight"])


def test_what_is_there_is_loaded_although_it_may_be_missing(tmp_path: Path) -> None:
    # Of a tied tensor one name will do.
    names = {"head.bias", "again.weight"}
    source = found(saved(tmp_path, change=lambda name: None if name in names else name), missing=["*"])
    assert source.conversion.missing == ("head.bias",)
    assert source.is_plain


def test_of_a_tied_tensor_every_name_has_to_be_allowed(tmp_path: Path) -> None:
    path = saved(tmp_path, change=without_head)
    with pytest.raises(ValueError, match=r"head.weight is missing; again.weight is missing; add --allow-missing"):
        found(path, missing=["head.*"])


def test_names_get_a_prefix_although_a_head_is_missing(tmp_path: Path) -> None:
    source = found(saved(tmp_path, Body), missing=["head.*", "again.*"])
    assert source.conversion.notes == ("names with 'body.'",)
    assert source.conversion.missing == HEAD
    assert source.state_dict().keys() == Headed().state_dict().keys() - set(HEAD)


def test_of_a_headed_checkpoint_a_body_takes_its_own(tmp_path: Path) -> None:
    source = found(saved(tmp_path), Body, surplus=["head.*", "again.*"])
    assert source.conversion.notes == ("names without 'body.'", "without 'head.weight', 'head.bias', 'again.weight'")
    assert source.state_dict().keys() == Body().state_dict().keys()


def test_a_head_of_another_shape_is_left_out_and_the_models_is_kept(tmp_path: Path) -> None:
    source = found(saved(tmp_path, ten_classes), missing=["head.*", "again.*"], surplus=["head.*", "again.*"])
    assert source.conversion.missing == HEAD
    assert not source.is_plain
    model = Headed()
    load(model, source.state_dict(), converted=source.conversion.converted, missing=source.conversion.missing)
    assert model.head.weight.shape == (3, 4)


def test_hooks_of_the_model_fill_in_what_they_do_beside_a_missing_head(tmp_path: Path) -> None:
    """An old batch norm has no `num_batches_tracked`."""
    path = saved(tmp_path, change=lambda name: None if "num_batches" in name else without_head(name))
    source = found(path, missing=["head.*", "again.*"])
    assert source.conversion.missing == HEAD
    [said] = source.conversion.notes
    assert said == "'body.norm.num_batches_tracked' renamed or filled in by the model's own load_state_dict"
    load(Headed(), source.state_dict(), converted=False, missing=source.conversion.missing)


def test_names_are_renamed_in_order_and_then_as_they_always_are(tmp_path: Path) -> None:
    path = saved(tmp_path, change=lambda name: f"module.{name.replace('body.encoder.', 'net=layers.')}")
    # An expression may have a '=' itself: the last one ends it.
    renames = [r"net==body.", r"\.layers\.(\d)=.encoder.\1"]
    source = found(path, renames=renames)
    assert source.conversion.notes == (*(f"names by --rename {one}" for one in renames), "names without 'module.'")
    assert source.state_dict().keys() == Headed().state_dict().keys()
    assert torch.equal(source.state_dict()["body.encoder.0.weight"], torch.load(path)["module.net=layers.0.weight"])


def test_globs_of_what_is_left_out_are_for_names_after_renaming(tmp_path: Path) -> None:
    path = saved(tmp_path, change=lambda name: name.replace("head", "top"))
    source = found(path, renames=["^top=old"], missing=["head.bias"], surplus=["old.bias", "old.w*"])
    assert source.conversion.missing == ("head.bias",)
    assert source.conversion.notes[1:] == ("without 'old.weight', 'old.bias'",)
    with pytest.raises(ValueError, match=r"--allow-surplus: 'top.\*' matches no name of the checkpoint; choose from"):
        found(path, renames=["^top=old"], missing=["head.bias"], surplus=["top.*"])


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (
            {"missing": ["haed.*"]},
            "--allow-missing: 'haed.*' matches no name of the model; choose from 'body.encoder.0.",
        ),
        ({"missing": ["Head.*"]}, "--allow-missing: 'Head.*' matches no name of the model; choose from"),
        (
            {"surplus": ["tail.*"]},
            "--allow-surplus: 'tail.*' matches no name of the checkpoint; choose from 'body.enco",
        ),
        (
            {"renames": ["tail=head"]},
            "--rename: 'tail' matches no name of the checkpoint; choose from 'body.encoder.0.",
        ),
        (
            {"renames": ["body=net", "body=b"]},
            "--rename: 'body' matches no name of the checkpoint; choose from 'net.enc",
        ),
        (
            {"renames": ["weight|bias=x"]},
            "--rename: 'body.encoder.0.weight' and 'body.encoder.0.bias' both become 'body.encoder.0.x' by 'weight|bi",
        ),
        ({"missing": ["head.*"]}, "--allow-missing: the checkpoint has all names that 'head.*' matches; leave out"),
    ],
)
def test_what_has_no_effect_is_one_line(tmp_path: Path, wanted: dict[str, Any], said: str) -> None:
    assert refusal(found, saved(tmp_path), **wanted).startswith(said)


@pytest.mark.parametrize("text", ["head", "=head", "(=x", r"a(.*)=\2", r"a(.*)=\g<b>"])
def test_a_rule_that_cannot_be_used_is_one_line(text: str) -> None:
    assert re.search(r"is not REGEX=REPLACEMENT; write|is not a valid expression \(", refusal(rule, text))


def sizes(*widths: int) -> Build:
    return lambda: nn.ModuleList(nn.Linear(4, width) for width in widths)


def whole_numbers() -> nn.Module:
    body = Body()
    body.norm.num_batches_tracked = torch.zeros(())
    return body


@pytest.mark.parametrize(
    ("made", "make", "advice"),
    [
        (Body, Headed, "; add --allow-missing 'head.*' --allow-missing 'again.*' to keep what the model starts with"),
        (Headed, Body, "; add --allow-surplus 'head.*' --allow-surplus 'again.*' to leave out what the model lacks"),
        (
            sizes(4, 10),
            sizes(4, 3),
            "; add --allow-surplus '1.*' --allow-missing '1.*' to keep what the model starts with",
        ),
        (
            lambda: nn.ModuleDict({"a": nn.Linear(2, 2), "b[0]": nn.Linear(2, 2)}),
            lambda: nn.ModuleDict({"a": nn.Linear(2, 2)}),
            "; add --allow-surplus 'b[[]0].*' to leave out what the model lacks",
        ),
        # Nothing of it, or of more than a few parts, fits.
        (sizes(4, 10), sizes(3, 3), OTHERWISE),
        (sizes(4, 5, 6, 7, 8), sizes(4, 1, 1, 1, 1), OTHERWISE),
        (Body, sizes(3), OTHERWISE),
        # Another dtype is no matter of names.
        (whole_numbers, Body, OTHERWISE),
    ],
)
def test_the_error_names_the_options_by_which_a_checkpoint_fits(
    tmp_path: Path, made: Build, make: Build, advice: str
) -> None:
    assert refusal(found, saved(tmp_path, made), make).endswith(advice)


def test_the_options_that_an_error_names_do_it(tmp_path: Path) -> None:
    path = saved(tmp_path, ten_classes, lambda name: f"module.{name}")
    line = refusal(found, path)
    surplus, missing = (re.findall(rf"--allow-{kind} '(\S+)'", line) for kind in ("surplus", "missing"))
    assert surplus == ["module.head.*", "module.again.*"]
    assert found(path, missing=missing, surplus=surplus).conversion.missing == HEAD
