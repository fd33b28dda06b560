"""Requests for a model on the hub: its headers are fetched, its weights are not, and each fault is a one-line error."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model.conftest import refusal
from model.examine.safetensors_file import read_header
from model.layouts.files import save_plain
from model.layouts.layouts import LAYOUTS
from model.user.hub_folder import HubFolder, fetch_folder
from model.user.hub_name import HubName
from model.user.local_hub import COMMIT, Handler, LocalHub

STATE: dict[str, Tensor] = {f"layers.{at}.weight": torch.rand(300, 40) for at in range(9)}
SHARD = "model-00002-of-00003.safetensors"
NET = "hub:acme/net@0123456789ab"

Fault = Callable[[Handler], None]


def fetched(folder: Path, name: str = "hub:acme/net", *, headers: bool = True) -> HubFolder:
    found = HubName.of(name)
    assert found
    return fetch_folder(found, folder / "here", headers=headers)


def served(hub: LocalHub, layout: str = "safetensors_sharded", state: Any = None) -> Path:
    """Put a model into the repository, and return its folder."""
    folder = hub.repositories["acme/net"]
    LAYOUTS[layout].save(state or STATE, folder, save_plain)
    (folder / "config.json").write_text('{"architectures": ["Net"]}')
    return folder


def header_bytes(file: Path) -> int:
    return 8 + int.from_bytes(file.read_bytes()[:8], "little")


@pytest.mark.parametrize("layout", ["safetensors", "safetensors_sharded"])
@pytest.mark.parametrize("revision", ["", "@refs/pr/1", f"@{COMMIT}"])
def test_headers_are_there_and_no_weights(hub: LocalHub, tmp_path: Path, layout: str, revision: str) -> None:
    there = served(hub, layout)
    here = fetched(tmp_path, f"hub:acme/net{revision}")
    assert here.weights == here.folder / LAYOUTS[layout].entrance
    assert (here.folder.name, here.display_name) == ("net", NET)
    files = [file for file in there.iterdir() if file.suffix == ".safetensors"]
    assert len(files) == (1 if layout == "safetensors" else 3)
    for file in files:
        copy = here.folder / file.name
        assert read_header(copy) == read_header(file)
        assert copy.stat().st_size == file.stat().st_size
        assert copy.read_bytes()[: header_bytes(file)] == file.read_bytes()[: header_bytes(file)]
        assert not any(copy.read_bytes()[header_bytes(file) :])
        assert hub.last[file.name] == header_bytes(file)
    for file in (there / "config.json", here.weights):
        assert (here.folder / file.name).read_bytes()[:9] == (there / file.name).read_bytes()[:9]
    headers = sum(map(header_bytes, files))
    assert f"({headers:,} bytes of headers), and no weights" in here.note
    beside = sum(file.stat().st_size for file in there.iterdir() if file.suffix == ".json")
    assert 0 < sum(hub.sent.values()) - headers - beside < 1000


def test_a_server_that_knows_no_parts_is_not_listened_to_for_long(hub: LocalHub, tmp_path: Path) -> None:
    there = served(hub, state={"weight": torch.rand(10_000_000)}, layout="safetensors")
    file = there / "model.safetensors"
    hub.faults["model.safetensors"] = lambda handler: handler.answer(file.read_bytes())
    here = fetched(tmp_path)
    assert read_header(here.folder / file.name) == read_header(file)
    # No answer was taken to its end.
    assert not [path for path in hub.sent if path.endswith(file.name)]


def test_of_many_files_one_after_the_other_is_fetched(hub: LocalHub, tmp_path: Path) -> None:
    there = served(hub)
    for at in range(60):
        LAYOUTS["safetensors"].save({f"{at}": torch.rand(3)}, there, save_plain)
        (there / "model.safetensors").rename(there / f"part-{at}.safetensors")
    index = {"weight_map": {f"{at}": f"part-{at}.safetensors" for at in range(60)}}
    (there / "model.safetensors.index.json").write_text(json.dumps(index))
    assert len([*fetched(tmp_path).folder.glob("part-*")]) == 60


def test_without_safetensors_or_the_wish_for_it_the_configuration_is_all(hub: LocalHub, tmp_path: Path) -> None:
    served(hub)
    assert fetched(tmp_path / "unwanted", headers=False).weights is None
    for file in hub.repositories["acme/net"].glob("model*"):
        file.unlink()
    LAYOUTS["torch_sharded"].save(STATE, hub.repositories["acme/net"], save_plain)
    here = fetched(tmp_path)
    assert here.weights is None
    assert [file.name for file in here.folder.iterdir()] == ["config.json"]
    assert here.note.endswith("the plan uses it alone: the repository has no .safetensors file that transformers loads")


@pytest.mark.parametrize(("names", "found"), [(("x",), "x.safetensors"), (("x", "y"), None)])
def test_a_file_with_another_name_is_taken_if_it_is_the_only_one(
    hub: LocalHub, tmp_path: Path, names: tuple[str, ...], found: str | None
) -> None:
    there = served(hub, "safetensors")
    for name in names:
        (there / f"{name}.safetensors").write_bytes((there / "model.safetensors").read_bytes())
    (there / "model.safetensors").unlink()
    here = fetched(tmp_path)
    assert (here.weights.name if here.weights else None) == found


def test_errors_name_the_repository_in_place_of_the_folder(hub: LocalHub, tmp_path: Path) -> None:
    served(hub)
    here = fetched(tmp_path)

    def fail() -> None:
        with here.named():
            raise ValueError(f"--checkpoint: {here.weights} is of another model")

    assert refusal(fail) == f"--model: {NET}/model.safetensors.index.json is of another model"
