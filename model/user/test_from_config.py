"""Tests of configurations: only transformers interprets them, and each fault of a folder is a one-line error."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from model.conftest import changed, of, refusal
from model.user.factory import skeleton
from model.user.from_config import FromConfig, from_config

transformers = pytest.importorskip("transformers", minversion="5", reason="it builds the models")

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
Spoil = Callable[[Path], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small model as transformers writes it."""
    config = transformers.LlamaConfig(**SMALL, vocab_size=90, dtype="bfloat16")
    transformers.LlamaForCausalLM._from_config(config).save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


def test_nothing_is_asked_of_the_hub() -> None:
    hub = pytest.importorskip("huggingface_hub")
    seen = []

    class Model(nn.Linear):
        @classmethod
        def from_config(cls, config: dict[str, Any]) -> nn.Module:
            seen.append((hub.constants.is_offline_mode(), os.environ.get("HF_HUB_OFFLINE")))
            return cls(**config)

    before = hub.constants.is_offline_mode(), os.environ.get("HF_HUB_OFFLINE")
    FromConfig(Model, {"in_features": 2, "out_features": 2})()
    assert seen == [(True, "1")]
    assert (hub.constants.is_offline_mode(), os.environ.get("HF_HUB_OFFLINE")) == before


def test_code_beside_a_configuration_is_not_run(folder: Path, tmp_path: Path) -> None:
    code = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
    classes = {"AutoConfig": "code.LlamaConfig", "AutoModelForCausalLM": "code.LlamaForCausalLM"}
    changed(folder, auto_map=classes)
    (folder / "code.py").write_text(code)
    assert type(of(folder).build()) is transformers.LlamaForCausalLM
    # What is found once is not read again.
    folder = changed(folder.rename(tmp_path / "theirs"), architectures=["TheirModel"])
    with pytest.raises(ValueError, match=r"has no model 'TheirModel', and code beside .*; write a function"):
        of(folder)
    assert not (tmp_path / "ran").exists()


def without(name: str) -> Spoil:
    return lambda folder: (folder / name).unlink()


def written(name: str, text: str) -> Spoil:
    return lambda folder: (folder / name).write_text(text)


def configured(**entries: Any) -> Spoil:
    return lambda folder: changed(folder, **entries)


def sparse(name: str) -> Spoil:
    return lambda folder: os.truncate(folder / name, 50 * 10**9)


def only(name: str) -> Spoil:
    """The folder with nothing else in it."""

    def empty(folder: Path) -> None:
        for file in folder.iterdir():
            file.unlink()
        (folder / name).write_text("{}")

    return empty


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (written("config.json", "[" * 100_000), "llama/config.json: it is not JSON ("),
        (configured(architectures=["LamaForCausalLM"]), "llama/config.json: transformers {version} has no model 'Lama"),
        (configured(architectures=[5]), "llama/config.json: transformers {version} has no model 5; write a function"),
        (configured(architectures=["AutoModel"]), "llama/config.json: transformers {version} has no model 'AutoModel'"),
        (configured(model_type="lama"), "llama/config.json: transformers {version} has no model_type 'lama'; write a"),
        (configured(model_type=["llama"]), "llama/config.json: transformers {version} has no model_type ['llama']; "),
        (configured(text_config={"num_labels": 10**8}), "llama/config.json: its num_labels is 100000000, above the"),
        (
            written("config.json", "[" + "[]," * 10**7 + "1]"),
            "llama/config.json: it is too large for a configuration: ",
        ),
        (sparse("config.json"), "llama/config.json: it is too large for a configuration: it has 50,"),
        (configured(dtype="\x1b[31m"), "llama/config.json: it is no configuration of LlamaForCausalLM: Attri"),
        (configured(dtype="float31"), "llama/config.json: it is no configuration of LlamaForCausalLM: "),
        (configured(_class_name="UNet9DModel"), "llama/config.json: diffusers "),
    ],
)
def test_a_folder_that_is_no_model_is_told_in_a_line(folder: Path, spoil: Spoil, said: str) -> None:
    if "diffusers " in said:
        pytest.importorskip("diffusers")
    spoil(folder)
    line = refusal(of, folder)
    assert line.removeprefix("--model: ").startswith(said.format(version=transformers.__version__))
    assert line.isprintable()
    assert str(folder.parent) not in line


def test_a_configuration_that_is_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(ValueError, match=r"^it is a FIFO, not a file$"):
        from_config(tmp_path / "config.json")


def test_an_implementation_of_attention_that_there_is_not_is_told_in_a_line(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"^[^\x1b\n]*\\x1b\[31m[^\x1b\n]*$"):
        skeleton(of(changed(folder, attn_implementation="\x1b[31m")).factory)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (configured(hidden_size=64), "is of another model: "),
        (configured(architectures=["GPT2LMHeadModel"], model_type="gpt2"), "is of another model: "),
        (configured(dtype="float32"), "bfloat16"),
        (written("model.safetensors", "version https://git-lfs.github.com/spec/v1\n"), "git-lfs"),
    ],
)
def test_weights_that_do_not_fit_the_configuration_are_told_in_a_line(folder: Path, spoil: Spoil, said: str) -> None:
    spoil(folder)
    with pytest.raises(ValueError, match=r"^--checkpoint: [^\n]*$") as caught:
        of(folder)
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["no-such-folder", "no/such/folder", "no/config.json", "x" * 5000, "a\0b"])
def test_a_folder_that_is_not_there_is_told_in_a_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"^--model: [^\n]*(is neither a folder nor|there is no )") as caught:
        of(text)
    assert "\n" not in str(caught.value)
