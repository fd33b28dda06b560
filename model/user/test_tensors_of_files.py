"""A model from `.safetensors` headers has the tensors of the files, and numbered modules are lists."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model.conftest import refusal
from model.layouts.files import save_plain
from model.layouts.layouts import LAYOUTS
from model.state_dict import untied
from model.user.conversion_request import ConversionRequest
from model.user.from_options import Named, user_model
from model.user.pretrained_folder import headers_of
from model.user.renaming import rule
from model.user.tensors_of_files import TensorsOfFiles
from model.user.user_model import UserModel

QUANTISED = {"architectures": ["NoSuchModel"], "quantization_config": {"quant_method": "fp8"}}
FP8 = {
    "embed.weight": torch.rand(8, 4).bfloat16(),
    "layers.0.weight": torch.rand(4, 4).to(torch.float8_e4m3fn),
    "layers.0.scale": torch.rand(1),
    "layers.1.weight": torch.rand(4, 4).to(torch.float8_e5m2),
    "layers.1.scale": torch.rand(4).to(torch.float8_e8m0fnu),
    "layers.10.zeros": torch.randint(1, 9, (4, 2), dtype=torch.int32),
    "layers.10.packed": torch.randint(1, 99, (4, 2), dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
    # Names of methods of a module.
    "forward.type": torch.rand(2),
}
ALONE = torch.rand(3)


def folder_of(path: Path, state: Mapping[str, Tensor], layout: str = "safetensors", **config: Any) -> Path:
    folder = path / "net"
    folder.mkdir()
    LAYOUTS[layout].save(dict(state), folder, save_plain)
    (folder / "config.json").write_text(json.dumps(QUANTISED | config))
    return folder


def planned(folder: Path | str, **options: Any) -> UserModel:
    return user_model(Named(str(folder), headers=headers_of(str(folder))), **options)


@pytest.mark.parametrize("layout", ["safetensors", "safetensors_sharded"])
def test_the_tensors_are_those_of_the_files(tmp_path: Path, layout: str) -> None:
    model = planned(folder_of(tmp_path, FP8, layout))
    built = model.skeleton().state_dict()
    assert {name: (one.dtype, one.shape) for name, one in built.items()} == {
        name: (one.dtype, one.shape) for name, one in FP8.items()
    }
    assert len(untied(built)) == len(FP8)
    assert (model.label, model.factory.display_name, model.source) == ("net", "net/config.json", None)
    [note] = model.notes
    assert note.startswith(
        "planned from the tensors of its files, because it is quantised by fp8: the plan has no first"
    )


def test_what_is_numbered_is_a_list_and_what_is_quantised_is_not_trained(tmp_path: Path) -> None:
    net = planned(folder_of(tmp_path, FP8)).skeleton()
    layers: Any = net.get_submodule("layers")
    assert type(layers) is nn.ModuleList
    assert len(layers) == 3
    assert {type(layer) for layer in layers} == {nn.Module}
    trained = {name for name, one in net.named_parameters() if one.requires_grad}
    assert trained == {"embed.weight", "layers.0.scale", "forward.type"}


def test_every_process_finds_it_by_its_text(tmp_path: Path) -> None:
    factory = planned(folder_of(tmp_path, FP8)).factory
    again = TensorsOfFiles.of(factory.text)
    assert again
    assert again.get() is factory.get()
    assert TensorsOfFiles.of("net") is None


def test_the_part_that_is_quantised_may_be_one_of_several(tmp_path: Path) -> None:
    part = {"quantization_config": {"quant_method": "awq"}}
    [note] = planned(folder_of(tmp_path, FP8, text_config=part, quantization_config=None)).notes
    assert note.startswith(
        "planned from the tensors of its files, because it is quantised by awq: the plan has no first"
    )


def test_without_transformers_it_is_planned_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path, FP8)
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    monkeypatch.setitem(sys.modules, "transformers", None)
    [note] = planned(folder).notes
    assert note.startswith("planned from the tensors of its files, because transformers cannot be imported: the plan")


def test_without_headers_a_quantised_model_is_refused_as_before(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, FP8)
    said = "--model: net/config.json: the model is quantised (quantization_config); write a function that builds it, or"
    assert refusal(user_model, str(folder)).startswith(said)
    assert refusal(planned, folder / "config.json").startswith(said)
    (folder / "model.safetensors").rename(folder / "model.gguf")
    assert refusal(planned, folder).startswith(said)


def test_it_is_only_planned(tmp_path: Path) -> None:
    text = planned(folder_of(tmp_path, FP8)).factory.text
    assert "there is no tensors-of:" in refusal(user_model, text)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"wanted": ConversionRequest(cast="bfloat16")}, "--cast: no installed class builds this model"),
        ({"wanted": ConversionRequest(renames=(rule("a=b"),))}, "--rename: no installed class builds this model"),
        ({"wanted": ConversionRequest(missing=("a",))}, "--allow-missing: no installed class builds this model"),
        ({"state_key": "model"}, "--state-key: no installed class builds this model"),
    ],
)
def test_options_that_change_tensors_are_refused(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    assert refusal(planned, folder_of(tmp_path, FP8), **options).startswith(said)


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (("a", "a.b"), "a.b"),
        (("a.b", "a"), "a"),
        (("a", "a.b.c"), "a.b.c"),
        (("a..b",), "a..b"),
        (("",), ""),
        (("a.",), "a."),
        (("a." * 101 + "b",), "a."),
    ],
)
def test_names_that_no_modules_have_are_one_line(tmp_path: Path, names: tuple[str, ...], name: str) -> None:
    folder = folder_of(tmp_path, {one: torch.rand(1) for one in names})
    said = refusal(planned, folder)
    assert said.startswith(f"--model: '{name}")
    assert said.endswith("cannot be the name of a tensor in modules, beside the others")


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b'{"a":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]}}', "a has the dtype F6_E2M3, which torch does "),
        (b'{"a":{"dtype":"I32","shape":[4],"data_offsets":[0,3]}}', "a has 3 bytes, where a torch.int32 of the sh"),
        (b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}', "has 72 bytes, where its tensors end at 71"),
        (b'{"error": "internal"}', "error has something else in the header than its dtype, shape and data_offsets"),
        (b"{]", "has a header that is no JSON"),
        (b"{}", "returns a model without weights"),
    ],
)
def test_a_header_that_is_none_is_one_line(tmp_path: Path, header: bytes, said: str) -> None:
    folder = folder_of(tmp_path, {"a": ALONE})
    filled = header + b" " * (61 - len(header))
    rest = bytes(0 if header == b"{}" else 3)
    (folder / "model.safetensors").write_bytes(len(filled).to_bytes(8, "little") + filled + rest)
    assert said in refusal(planned, folder)
