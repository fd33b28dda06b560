"""A folder with everything that the rows of the tables name: code, checkpoints, and folders of Hugging Face."""

import gzip
import json
import pickle
import shutil
import struct
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.selftest.faults.archives import ARCHIVE_FAULTS

CODE = """
import torch
from torch import nn

LIST = [1, 2]
PLAN = {"blocks.*.q_proj": "colwise"}
STYLES = {"up": "diagonal"}
NORM = {"norm": "colwise"}
SAME = nn.Linear(3, 2)

def net():
    return nn.Linear(3, 2)

def example():
    return torch.ones(1, 3)

def failing():
    raise KeyError("hidden_size")

def number():
    return 3

def same():
    return SAME

def lazy():
    return nn.LazyLinear(2)

def sparse():
    model = nn.Linear(3, 2)
    model.register_buffer("mask", torch.eye(3).to_sparse())
    return model

def split():
    return nn.ModuleDict({"norm": nn.LayerNorm(4), "up": nn.Linear(4, 6)})

def empty():
    return nn.ReLU()

def tied():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    return model

def load(build, path, device):
    pass

def streamed(build, path, device):
    pass

def of_zarr(build, path, device):
    pass

of_zarr.layout = "zarr"
"""

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 16,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def furnish(folder: Path) -> None:
    """Write the code, the checkpoints and the folders; those of transformers if that is installed."""
    for name, text in {
        "mine.py": CODE,
        "broken.py": "import no_such_module\n",
        "exits.py": "import sys\n\nsys.exit('no licence')\n",
    }.items():
        (folder / name).write_text(text)
    _write_checkpoints(folder)
    _write_folders(folder)
    _write_indexes(folder)
    if find_spec("transformers"):
        _write_llamas(folder)


def _write_checkpoints(folder: Path) -> None:
    net = nn.Linear(3, 2).state_dict()
    training = {"model": net, "optimizer": {"state": {}, "param_groups": []}, "epoch": 3}
    saved: Mapping[str, object] = {
        "net.pt": net,
        "other.pt": nn.Conv1d(3, 2, 5).state_dict() | {"scale": torch.ones(1)},
        "deeper.pt": net | {"head.weight": torch.ones(2, 2), "head.bias": torch.ones(2)},
        "wider.pt": nn.Linear(3, 4).state_dict(),
        "bfloat16.pt": {name: value.bfloat16() for name, value in net.items()},
        "integers.pt": {name: value.to(torch.int8) for name, value in net.items()},
        "training.ckpt": training,
        "others.ckpt": {"generator": nn.Conv1d(3, 2, 5).state_dict(), "critic": nn.Conv1d(3, 1, 5).state_dict()},
        "foreign.ckpt": {"generator": {"kernel": torch.ones(3)}},
        "twice.ckpt": {1: net, "1": net},
        "numbers.pt": {"epoch": 3, "loss": 0.5},
        "tensor.pt": torch.ones(3),
        "lora.pt": {f"base_model.model.{name}": torch.ones(2, 2) for name in ("q.lora_A.weight", "q.lora_B.weight")},
        "untied.pt": {"0.weight": torch.ones(3, 3), "1.weight": torch.zeros(3, 3)},
        "whole-model.pt": nn.Linear(3, 2),
        "with-arguments.pt": {"model": net, "args": Path("data")},
    }
    for name, content in saved.items():
        torch.save(content, folder / name)
    for name, fault in {
        "old.pt": "format before 1.6",
        "script.pt": "TorchScript",
        "in-a-zip.pt": "zip around it",
        "office.pt": "another zip",
    }.items():
        torch.save(_numbered(), folder / name)
        ARCHIVE_FAULTS[fault].inject(folder / name)
    content = (folder / "net.pt").read_bytes()
    weight = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    header = json.dumps({"weight": weight, "bias": {"dtype": "F32", "shape": [2], "data_offsets": [24, 32]}}).encode()
    safetensors = struct.pack("<Q", len(header)) + header + bytes(32)
    lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 4983508568\n"
    for name, written in {
        "empty.pt": b"",
        "empty.safetensors": b"",
        "lfs.pt": lfs,
        "lfs.safetensors": lfs,
        "page.pt": b"<!DOCTYPE html><html><body>Sign in</body></html>",
        "refused.pt": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
        "denied.pt": b"Access to this resource is denied.",
        "zipped.pt.gz": gzip.compress(content),
        "model.gguf": b"GGUF\3\0\0\0" + bytes(99),
        "model.h5": b"\x89HDF\r\n\x1a\n" + bytes(99),
        "short.pt": content[:7],
        "cut.pt": content[: len(content) // 2],
        "random.pt": b"\xa5" * 999,
        "random.safetensors": b"\xa5" * 999,
        "net.safetensors": safetensors,
        "cut.safetensors": safetensors[:-9],
        "renamed.safetensors": content,
        "no-json.safetensors": struct.pack("<Q", 16) + b"{" + bytes(20),
        "cut-header.safetensors": struct.pack("<Q", 16) + b"{" + bytes(6),
        "longer.safetensors": safetensors + bytes(6),
        "pickled.pt": pickle.dumps(net["weight"].tolist(), protocol=2),
    }.items():
        (folder / name).write_bytes(written)
    (folder / "loop.pt").symlink_to("loop.pt")


def _numbered() -> dict[str, Tensor]:
    return {str(number): torch.full((4,), number) for number in range(5)}


def _write_folders(folder: Path) -> None:
    files: Mapping[str, Mapping[str, object]] = {
        "no-config": {},
        "adapter": {"adapter_config.json": {}, "adapter_model.bin": _bytes_of(folder / "lora.pt")},
        "pipeline": {"model_index.json": {}},
        "gguf": {"llama-Q4_K_M.gguf": b"GGUF"},
        "no-weights": {"config.json": LLAMA},
        "unbuilt": {"config.json": LLAMA, "model.safetensors": _bytes_of(folder / "net.safetensors")},
        "unet": {"config.json": {"_class_name": "UNet2DModel"}, "model.safetensors": b""},
        "gguf-weights": {"config.json": LLAMA, "llama-Q4_K_M.gguf": b"GGUF"},
        "two": {"first.pt": _bytes_of(folder / "net.pt"), "last.pt": _bytes_of(folder / "net.pt")},
        "dcp": {".metadata": b"", "__0_0.distcp": b""},
    }
    for name, written in files.items():
        write_folder(folder / name, written)


def write_folder(folder: Path, files: Mapping[str, object]) -> None:
    """Write files of bytes, and others as JSON."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


def _bytes_of(file: Path) -> bytes:
    return file.read_bytes()


def _write_indexes(folder: Path) -> None:
    one = _bytes_of(folder / "net.safetensors")
    for name, index in {
        "no-shard": {
            "weight_map": {"weight": "model-00001-of-00002.safetensors", "bias": "model-00002-of-00002.safetensors"}
        },
        "no-list": {
            "weight_map": {"weight": "model-00001-of-00002.safetensors", "scale": "model-00001-of-00002.safetensors"}
        },
        "no-map": {"metadata": {"total_size": 32}},
        "wrong-map": {"weight_map": {"weight": 3}},
        "leads-out": {"weight_map": {"weight": "../net.safetensors", "bias": "../net.safetensors"}},
    }.items():
        files = {"model.safetensors.index.json": index, "model-00001-of-00002.safetensors": one}
        write_folder(folder / name, files)


def _write_llamas(folder: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415 - it takes seconds

    def with_config(name: str, **changes: Any) -> None:
        described = {key: value for key, value in (LLAMA | changes).items() if value is not None}
        write_folder(folder / name, {"config.json": described})

    for name, config in {"no-json": b"{'hidden_size': 8}", "a-list": b"[]"}.items():
        write_folder(folder / name, {"config.json": config})
    with_config("no-architecture", architectures=None)
    with_config("their-code", architectures=["TheirModel"], auto_map={"AutoModelForCausalLM": "modeling.TheirModel"})
    with_config("quantised", quantization_config={"quant_method": "gptq", "bits": 4})
    with_config("their-kind", model_type="theirs")
    with_config("base", architectures=["PreTrainedModel"])
    with_config("many-layers", num_hidden_layers=10**9)
    with_config("wrong-sizes", hidden_size="many")
    for name in (
        "no-json",
        "a-list",
        "no-architecture",
        "their-code",
        "quantised",
        "their-kind",
        "base",
        "many-layers",
        "wrong-sizes",
    ):
        shutil.copy(folder / "net.safetensors", folder / name / "model.safetensors")
    model = LlamaForCausalLM(LlamaConfig(**{key: value for key, value in LLAMA.items() if key != "architectures"}))

    def saved(name: str, change: Callable[[Path], object] = lambda _: None, **options: Any) -> None:
        model.save_pretrained(folder / name, **options)
        change(folder / name)

    saved("llama")
    saved("no-shard-of-llama", lambda one: min(one.glob("model-*")).unlink(), max_shard_size="2KB")
    saved("no-bin-shard", _without_a_bin_shard)
    saved("cut-llama", _changed(lambda content: content[:-99]))
    saved("lfs-llama", _changed(lambda _: b"version https://git-lfs.github.com/spec/v1\n"))
    saved("empty-llama", _changed(lambda _: b""))
    saved("bfloat16-llama", lambda one: _with_config(one, dtype="bfloat16"))
    saved("classifier", lambda one: _with_config(one, architectures=["LlamaForSequenceClassification"]))


def _with_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _changed(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda folder: (file := folder / "model.safetensors").write_bytes(change(file.read_bytes()))


def _without_a_bin_shard(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin.index.json").write_text(
        json.dumps({"weight_map": {"lm_head.weight": "pytorch_model-00001-of-00002.bin"}})
    )
