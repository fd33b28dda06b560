"""Tests of the checkpoints that a loader of another project finds as they lie."""

import json
from pathlib import Path

import pytest

from bench.strategies.peers.finding import by_folder, by_name, by_path, by_suffix
from model.user.source import Source

INDEX = {"safetensors_sharded": "safetensors", "torch_sharded": "bin"}


def lying(folder: Path, layout: str, name: str, *others: str) -> Source:
    """A checkpoint of that name, with its shards where it has any, and other files beside it."""
    (folder / name).touch()
    for other in others:
        (folder / other).touch()
    if layout in INDEX:
        shards = {letter: f"{letter}.{INDEX[layout]}" for letter in "ab"}
        (folder / name).write_text(json.dumps({"metadata": {"total_size": 2}, "weight_map": shards}))
        for shard in shards.values():
            (folder / shard).touch()
    return Source(folder / name, layout)


@pytest.mark.parametrize(
    ("layout", "names", "found"),
    [
        ("safetensors", ["model.safetensors"], True),
        ("safetensors", ["mine.safetensors"], False),
        ("safetensors_sharded", ["model.safetensors.index.json"], True),
        ("torch", ["pytorch_model.bin"], True),
        ("torch", ["checkpoint.pt"], False),
        ("torch_sharded", ["pytorch_model.bin.index.json", "config.json"], True),
        # It would load what it looks for first.
        ("torch", ["pytorch_model.bin", "model.safetensors"], False),
        ("safetensors", ["model.safetensors", "pytorch_model.bin"], True),
        ("safetensors_sharded", ["model.safetensors.index.json", "model.safetensors"], False),
    ],
)
def test_transformers_takes_the_first_of_its_names(tmp_path: Path, layout: str, names: list[str], found: bool) -> None:
    assert by_name(lying(tmp_path, layout, *names)) == found


@pytest.mark.parametrize(
    ("layout", "name", "found"),
    [
        ("safetensors", "mine.safetensors", True),
        ("safetensors", "mine.st", False),
        ("torch", "mine.st", True),
        ("torch", "mine.safetensors", False),
        ("safetensors_sharded", "index.json", True),
        ("safetensors_sharded", "index", False),
        ("torch_sharded", "pytorch_model.bin.index.json", True),
    ],
)
def test_accelerate_goes_by_the_suffix(tmp_path: Path, layout: str, name: str, found: bool) -> None:
    assert by_suffix(lying(tmp_path, layout, name)) == found


def test_what_lies_beside_it_is_loaded_too_by_who_takes_the_folder(tmp_path: Path) -> None:
    source = lying(tmp_path, "safetensors_sharded", "model.safetensors.index.json", "config.json")
    assert by_folder(source)
    (tmp_path / "consolidated.safetensors").touch()
    assert not by_folder(source)
    assert by_path(source)
