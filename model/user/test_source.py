"""Checkpoints as people have them, recognised by their content."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from model import conftest
from model.examine.saved_file import read_saved
from model.examine.trust import UntrustedCheckpoint
from model.layouts.files import save_plain
from model.layouts.layouts import LAYOUTS
from model.user.source import OTHERWISE, Source, recognised
from model.user.state_keys import state_dicts


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight


STATE = Tied().state_dict()
NAMES = list(STATE)


def saved(content: object, folder: Path, name: str = "weights") -> Path:
    torch.save(content, folder / name)
    return folder / name


def prefixed(prefix: str, state: dict[str, Any] = STATE) -> dict[str, Any]:
    return {prefix + name: value for name, value in state.items()}


def refusal(path: Path, state_key: str | None = None) -> str:
    return conftest.refusal(recognised, path, STATE, state_key).replace(f"{path.parent}/", "")


@pytest.mark.parametrize("in_folder", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_recognised_whatever_its_files_are_called(tmp_path: Path, layout: str, in_folder: bool) -> None:
    LAYOUTS[layout].save(STATE, tmp_path, save_plain)
    path = tmp_path / LAYOUTS[layout].entrance
    if layout != "per_tensor" and not in_folder:
        path = path.rename(path.with_name("weights"))
    source = recognised(path.parent if in_folder and layout != "per_tensor" else path, STATE)
    assert source == Source(path, layout)
    assert source.is_plain
    found, names = source.state_dict(), set(NAMES)
    assert names - {"head.weight"} <= found.keys() <= names
    assert all(torch.equal(found[name], STATE[name]) for name in found)
    assert {file.name for file in source.files} == {
        file.name for file in tmp_path.rglob("*") if file.is_file() and file.parent in (path, path.parent)
    }


@pytest.mark.parametrize(
    ("content", "key", "keys", "said"),
    [
        ({"model": STATE, "epoch": 3, "rates": [0.1, None]}, "model", ("model",), ()),
        ({"model": STATE, "ema": STATE, "step": 3}, "ema", ("ema",), ()),
        ({"states": {"a.b": STATE, "c": {"x": torch.ones(1)}}, "n": 1}, "states.a.b", ("states", "a.b"), ()),
        ({0: STATE, "step": 3}, "0", (0,), ()),
        (prefixed("module."), None, (), ("names without 'module.'",)),
        (prefixed("_orig_mod.module."), None, (), ("names without '_orig_mod.module.'",)),
        ({"state_dict": prefixed("model."), "epoch": 1}, "state_dict", ("state_dict",), ("names without 'model.'",)),
    ],
)
def test_the_state_dict_in_a_training_checkpoint_is_found(
    tmp_path: Path, content: Any, key: str | None, keys: tuple[str | int, ...], said: tuple[str, ...]
) -> None:
    source = recognised(saved(content, tmp_path), STATE, key)
    assert (source.keys, source.conversion.notes, source.is_plain) == (keys, said, False)
    found = source.state_dict()
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], STATE[name]) for name in found)


@pytest.mark.parametrize("layout", ["safetensors", "torch_sharded", "safetensors_sharded"])
def test_a_prefix_is_found_in_every_file(tmp_path: Path, layout: str) -> None:
    LAYOUTS[layout].save(prefixed("module."), tmp_path, save_plain)
    source = recognised(tmp_path, STATE)
    assert source.conversion.notes == ("names without 'module.'",)
    assert source.state_dict().keys() >= STATE.keys() - {"head.weight"}


@pytest.mark.parametrize(
    ("content", "key", "said"),
    [
        (
            {"a": prefixed("module."), "b": STATE, "c": {"x": torch.ones(1)}, "n": 1},
            None,
            "holds more than the state dict of the model; add --state-key a or --state-key b",
        ),
        (
            {"mean": torch.ones(1), "step": 3, "model": STATE},
            None,
            "holds more than the state dict of the model; add --state-key model",
        ),
        (
            {"mean": torch.ones(1), "step": 3},
            None,
            "weights is of another model, without 'step': embed.weight is missing",
        ),
        ({}, None, "weights has no state dict; save model.state_dict()"),
    ],
)
def test_what_has_to_be_said_is_offered(tmp_path: Path, content: Any, key: str | None, said: str) -> None:
    assert said in refusal(saved(content, tmp_path), key)


def test_of_another_model_the_first_differences_are_told_and_how_many_more(tmp_path: Path) -> None:
    other = {f"layer.{number}": torch.ones(1) for number in range(9)} | {"norm.bias": torch.ones(4).long()}
    told = refusal(saved(other, tmp_path))
    assert told.startswith("--checkpoint: weights is of another model: embed.weight is missing; norm.weight is")
    assert told.endswith(f"; and 13 more{OTHERWISE}")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.update({"norm.bias": torch.ones(5)}), "norm.bias has the shape [5], where"),
        (
            lambda state: state.update({"norm.bias": torch.ones(4).half()}),
            "holds float16 in 'norm.bias', and the model is built in float32; add --cast float32 (or float16), or",
        ),
        (lambda state: state.update({"norm.bias": torch.ones(4).long()}), "norm.bias is torch.int64, where"),
        (lambda state: state.update({"head.weight": STATE["head.weight"].clone()}), "has its own memory, where"),
    ],
)
def test_one_difference_is_enough(tmp_path: Path, change: Callable[[dict[str, Any]], None], said: str) -> None:
    state = dict(STATE)
    change(state)
    assert said in refusal(saved(state, tmp_path))


def test_names_of_a_hostile_file_are_printable(tmp_path: Path) -> None:
    said = refusal(saved({**STATE, "\x1b[2Jall is well\n": torch.ones(1), "z" * 100_000: torch.ones(1)}, tmp_path))
    assert said.isprintable()
    assert "\\x1b[2Jall is well\\n is not in the model" in said
    assert len(said) < 2000


def test_dicts_that_hold_each_other_are_looked_into_once(tmp_path: Path) -> None:
    """There are as many ways through them as there are dicts to the power of the levels."""
    dicts: list[dict[str, Any]] = [{"w": torch.ones(1)} for _ in range(60)]
    for one in dicts:
        one.update({f"k{place}": other for place, other in enumerate(dicts)})
    states = [keys for keys, _ in state_dicts(read_saved(saved(dicts[0], tmp_path), contents=False, follow=True))]
    assert 60 < len(states) <= 60 * 60 + 1


def test_a_key_that_leads_to_two_state_dicts_is_refused(tmp_path: Path) -> None:
    path = saved({"a.b": dict(STATE), "a": {"b": dict(STATE)}}, tmp_path)
    assert refusal(path, "a.b") == (
        "--state-key: 'a.b' leads to several state dicts of weights; save the one that you mean by itself"
    )


def test_a_path_that_no_file_can_have_is_told(tmp_path: Path) -> None:
    assert refusal(tmp_path / ("z" * 300)).endswith("cannot be read (File name too long); name another file or folder")


@pytest.mark.parametrize("layout", ["torch_sharded", "safetensors_sharded"])
def test_shards_may_be_in_folders_and_hold_more_than_is_listed(tmp_path: Path, layout: str) -> None:
    names = list(LAYOUTS[layout].save(STATE, tmp_path, save_plain))
    path = tmp_path / names.pop()
    index = path.read_text()
    for name in names:
        (tmp_path / name.partition(".")[0]).mkdir()
        (tmp_path / name).rename(tmp_path / name.partition(".")[0] / "model")
        index = index.replace(f'"{name}"', f'"{name.partition(".")[0]}/model"')
    path.write_text(index)
    source = recognised(tmp_path, STATE)
    assert source == Source(path, layout)
    assert source.is_plain
    assert source.files == (path, *(tmp_path / name.partition(".")[0] / "model" for name in names))

    lines = [line for line in index.splitlines() if '"norm.bias"' not in line]
    path.write_text("\n".join(lines))
    expected = {name: value for name, value in STATE.items() if name != "norm.bias"}
    source = recognised(tmp_path, expected)
    # What is not the model's would be charged to a strategy.
    assert not source.is_plain
    assert expected.keys() - {"head.weight"} <= source.state_dict().keys() <= expected.keys()


@pytest.mark.parametrize("layout", ["torch_sharded", "safetensors_sharded"])
def test_a_name_that_an_index_lists_in_vain_is_told_with_the_file(tmp_path: Path, layout: str) -> None:
    first, *_, entrance = LAYOUTS[layout].save(STATE, tmp_path, save_plain)
    path = tmp_path / entrance
    path.write_text(path.read_text().replace('"weight_map": {', f'"weight_map": {{"spare": "{first}",'))
    told = f"{first}: spare is not in this file, but {entrance} lists it there: copy both again, or correct the index"
    assert refusal(path) == f"--checkpoint: {told}"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "pipe is a FIFO, not a file" in refusal(tmp_path / "pipe")


def test_a_folder_has_to_hold_one_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    assert refusal(folder) == "--checkpoint: run has no checkpoint; name a file or another folder"
    for name in ("first", "second"):
        saved(STATE, folder, name)
    assert refusal(folder) == "--checkpoint: run has several checkpoints, first, second; name one of them"
    (folder / ".metadata").write_bytes(b"")
    assert "run is a folder of torch.distributed.checkpoint; convert it to one file (python -m" in refusal(folder)


def test_a_folder_of_files_may_have_one_too_many(tmp_path: Path) -> None:
    LAYOUTS["per_tensor"].save(STATE, tmp_path, save_plain)
    torch.save(torch.ones(1), tmp_path / "tensors" / "stranger.pt")
    assert "tensors is of another model: stranger is not in the model" in refusal(tmp_path / "tensors")


@pytest.mark.parametrize("layout", ["torch", "per_tensor", "torch_sharded"])
def test_damage_is_found_when_every_byte_is_read(tmp_path: Path, layout: str) -> None:
    LAYOUTS[layout].save(STATE, tmp_path, save_plain)
    source = recognised(tmp_path / LAYOUTS[layout].entrance, STATE)
    source.require_sound()
    value = bytes(STATE["embed.weight"].view(torch.uint8).flatten().tolist())
    [file] = [file for file in source.files if value in file.read_bytes()]
    file.write_bytes(file.read_bytes().replace(value, bytes(len(value))))
    assert recognised(source.path, STATE) == source
    with pytest.raises(UntrustedCheckpoint, match="CRC-32 is not the one that was written"):
        source.require_sound()
