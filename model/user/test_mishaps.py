"""Tests of files in place of a checkpoint: the error says what they are."""

from pathlib import Path

import pytest

from model.layouts.files import save_plain
from model.layouts.layouts import LAYOUTS
from model.user.source import recognised
from model.user.test_source import STATE, refusal

# The content of a file after each mishap, and the text of the error.
MISHAPS = {
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"7" * 64 + b"\nsize 4096\n",
        "is a git-lfs pointer, not the file: run git lfs pull",
    ),
    "page": (b"\n <!DOCTYPE html><html><body>404</body></html>", "is a web page, not a checkpoint: download the file"),
    "short page": (b"<HTML><body>Sign in</body></HTML>", "is a web page, not a checkpoint: download the file itself"),
    "XML": (
        b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>",
        "is XML, as a server sends to tell an error",
    ),
    "text": (b"Entry not found\nat all", "is text that begins with 'Entry not found', not a checkpoint: download"),
    "empty": (b"", "is empty: download or copy it again"),
    "cut": (b"d\0\0\0\0", "is cut off at 5 bytes, fewer than any checkpoint has: download or copy it again"),
    "gzip": (b"\x1f\x8b\x08" + bytes(99), "is compressed by gzip: unpack it"),
    "GGUF": (b"GGUF\3\0\0\0" + bytes(99), "is a GGUF file, which torch does not load: name a .safetensors file"),
}


@pytest.mark.parametrize("in_folder", [False, True])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.pt"])
@pytest.mark.parametrize("kind", MISHAPS)
def test_a_mishap_is_named(tmp_path: Path, kind: str, name: str, in_folder: bool) -> None:
    content, said = MISHAPS[kind]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_bytes(content)
    (tmp_path / "run" / "config.json").write_text("{}")
    (tmp_path / "run" / "README.md").write_text("A model.")
    told = refusal(tmp_path / "run" if in_folder else tmp_path / "run" / name)
    assert told.removeprefix("--checkpoint: ").removeprefix("run/").startswith(f"{name} {said}")


@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize("layout", ["torch_sharded", "safetensors_sharded", "per_tensor"])
@pytest.mark.parametrize("kind", MISHAPS)
def test_a_mishap_of_one_file_of_several_is_named(tmp_path: Path, kind: str, layout: str, place: int) -> None:
    content, said = MISHAPS[kind]
    files = [tmp_path / name for name in LAYOUTS[layout].save(STATE, tmp_path, save_plain)]
    files[place].write_bytes(content)
    told = refusal(tmp_path / LAYOUTS[layout].entrance)
    assert files[place].name in told
    assert said in told


def test_a_mishap_beside_a_checkpoint_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "pytorch_model.bin").write_bytes(MISHAPS["pointer"][0])
    LAYOUTS["safetensors"].save(STATE, tmp_path / "run", save_plain)
    assert recognised(tmp_path / "run", STATE).layout == "safetensors"
