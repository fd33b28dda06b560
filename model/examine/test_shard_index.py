import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from model.examine.shard_index import read_index, shards
from model.examine.zip_directory import MalformedFile
from model.layouts.files import save_plain
from model.layouts.layouts import LAYOUTS

TENSORS = {"first": torch.ones(100), "second": torch.ones(90), "third": torch.ones(110)}
STATE: dict[str, Any] = TENSORS | {"second_tied": TENSORS["second"], "_extra_state": 7}


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], [[]]),
        ([5], [["0"]]),
        ([5, 5], [["0"], ["1"]]),
        ([5, 5, 5], [["0"], ["1"], ["2"]]),
        ([1, 1, 1, 90], [["0", "1"], ["2"], ["3"]]),
        ([90, 1, 1, 1], [["0"], ["1"], ["2", "3"]]),
        ([0, 0, 0, 0], [["0"], ["1"], ["2", "3"]]),
        ([3] * 9, [["0", "1", "2"], ["3", "4", "5"], ["6", "7", "8"]]),
    ],
)
def test_three_parts_of_about_as_many_bytes(sizes: list[int], expected: list[list[str]]) -> None:
    state_dict = {str(at): torch.ones(size) for at, size in enumerate(sizes)}
    assert [list(part) for part in shards(state_dict)] == expected


def test_what_shares_memory_stays_together_and_what_is_no_tensor_comes_first() -> None:
    assert [list(part) for part in shards(STATE)] == [["_extra_state", "first"], ["second", "second_tied"], ["third"]]


def test_an_index_is_what_hugging_face_writes(tmp_path: Path) -> None:
    files = LAYOUTS["torch_sharded"].save(STATE, tmp_path, save_plain)
    first, second, third = (f"pytorch_model-0000{at}-of-00003.bin" for at in (1, 2, 3))
    assert list(files) == [first, second, third, "pytorch_model.bin.index.json"]
    assert json.loads((tmp_path / "pytorch_model.bin.index.json").read_bytes()) == {
        "metadata": {"total_size": 1200},
        "weight_map": {"_extra_state": first, "first": first, "second": second, "second_tied": second, "third": third},
    }


def test_of_tied_tensors_safetensors_have_the_first(tmp_path: Path) -> None:
    LAYOUTS["safetensors_sharded"].save(TENSORS | {"tied": TENSORS["second"]}, tmp_path, save_plain)
    path = tmp_path / "model.safetensors.index.json"
    assert json.loads(path.read_bytes())["weight_map"].keys() == TENSORS.keys()
    read = dict(LAYOUTS["safetensors_sharded"].read(path))
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[name], TENSORS[name]) for name in read)


@pytest.mark.parametrize(
    "file",
    ["", ".", "..", "/etc/passwd", "../model", "a/../b", "a/..", "./a", "a//b", "a/", "a\\b", "a\0b", None, ["a"]],
)
def test_an_index_leads_nowhere_else(file: object, tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(json.dumps({"weight_map": {"a": file}}))
    with pytest.raises(MalformedFile, match=r"leads out of the folder|without the name of a file"):
        read_index(tmp_path / "index.json")


def test_a_file_may_be_in_a_folder_below_the_index(tmp_path: Path) -> None:
    places = {"a": "one/model.bin", "b": "one/more/model.bin", "c": "model.bin", "d": "one/model.bin"}
    (tmp_path / "index.json").write_text(json.dumps({"weight_map": places}))
    assert read_index(tmp_path / "index.json") == {
        tmp_path / "one" / "model.bin": ["a", "d"],
        tmp_path / "one" / "more" / "model.bin": ["b"],
        tmp_path / "model.bin": ["c"],
    }


@pytest.mark.parametrize("link", [Path.hardlink_to, Path.symlink_to])
def test_an_index_does_not_list_one_file_by_two_names(link: Callable[[Path, Path], None], tmp_path: Path) -> None:
    LAYOUTS["safetensors_sharded"].save(TENSORS, tmp_path, save_plain)
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_bytes())
    assert read_index(path).keys() == {tmp_path / file for file in index["weight_map"].values()}
    link(tmp_path / "again.safetensors", tmp_path / index["weight_map"]["first"])
    index["weight_map"]["fourth"] = "again.safetensors"
    path.write_text(json.dumps(index))
    with pytest.raises(
        MalformedFile, match=r"^lists model-00001-of-00003\.safetensors and again\.safetensors, which are one"
    ):
        read_index(path)


@pytest.mark.parametrize("layout", ["torch_sharded", "safetensors_sharded"])
def test_of_two_files_with_a_tensor_the_one_counts_that_the_index_lists(layout: str, tmp_path: Path) -> None:
    LAYOUTS[layout].save(TENSORS, tmp_path, save_plain)
    others = {name: tensor + 1 for name, tensor in TENSORS.items()} | {"stranger": torch.ones(1)}
    (tmp_path / "others").mkdir()
    [file] = LAYOUTS[layout.removesuffix("_sharded")].save(others, tmp_path / "others", save_plain)
    path = tmp_path / LAYOUTS[layout].entrance
    index = json.loads(path.read_bytes())
    index["weight_map"] |= dict.fromkeys(("first", "third"), f"others/{file}")
    path.write_text(json.dumps(index))
    read = dict(LAYOUTS[layout].read(path))
    assert read.keys() == TENSORS.keys()
    assert {name: read[name][0].item() for name in read} == {"first": 2.0, "second": 1.0, "third": 2.0}
