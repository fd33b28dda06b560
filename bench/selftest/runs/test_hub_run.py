"""Runs that plan a model of the hub, which is a server on this machine."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bench.conftest import Bench, last_record, recorded
from bench.selftest.documents.conftest import columns
from model.layouts.files import save_plain
from model.layouts.layouts import LAYOUTS
from model.user.local_hub import LocalHub, local_hub

transformers = pytest.importorskip("transformers", minversion="5", reason="it builds the models")

PLAN = ("--plan", "--strategies", "load_assign,streamed")
COLUMNS = ("GPU MiB", "theory", "RAM MiB", "verdict")


@pytest.fixture(scope="module")
def hub(folder: Path) -> Iterator[LocalHub]:
    """Serve a Llama in several files, and tensors that are quantised."""
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.LlamaConfig(**sizes, vocab_size=900, dtype="bfloat16")
    model = transformers.LlamaForCausalLM._from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder / "llama", max_shard_size="60KB")
    (folder / "fp8").mkdir()
    weights = {f"layers.{at}.weight": torch.rand(64, 64).to(torch.float8_e4m3fn) for at in range(3)}
    LAYOUTS["safetensors"].save(weights | {"scale": torch.rand(3)}, folder / "fp8", save_plain)
    quantised = {"architectures": ["LlamaForCausalLM"], "quantization_config": {"quant_method": "fp8"}}
    (folder / "fp8" / "config.json").write_text(json.dumps(quantised))
    with local_hub({"acme/llama": folder / "llama", "acme/fp8": folder / "fp8"}) as served:
        yield served


def test_a_plan_prints_what_that_of_the_folder_prints(bench: Bench, folder: Path, hub: LocalHub) -> None:
    run = bench("--model", "hub:acme/llama", *PLAN, env=hub.environment)
    assert run.returncode == 0, run.stdout + run.stderr
    # The processes of loads find what was fetched: each part is asked for once.
    assert sum("/api/models/" in path for path in hub.sent) == 1
    assert not {path for path, count in hub.sent.items() if count > 4000}
    assert "checkpoint: llama: hub:acme/llama@0123456789ab: config.json and the headers of" in run.stdout
    record = last_record(folder)
    assert {one["extra_info"]["model"] for one in record["benchmarks"]} == {"hub:acme/llama@0123456789ab"}
    assert not [path for path in (str(folder), "wl-run-", hub.url) if path in json.dumps(record)]
    of_hub = columns(run.stdout, *COLUMNS)
    assert of_hub.keys() == {"load_assign", "streamed"}
    of_folder = bench("--model", str(folder / "llama"), *PLAN)
    assert columns(of_folder.stdout, *COLUMNS) == of_hub


def test_quantised_tensors_are_planned_as_they_lie(bench: Bench, folder: Path, hub: LocalHub) -> None:
    run = bench("--model", "hub:acme/fp8", *PLAN, env=hub.environment)
    assert run.returncode == 0, run.stdout + run.stderr
    assert (
        "fp8: planned from the tensors of its files, because it is quantised by fp8: the plan has no first"
        in run.stdout
    )
    assert f"fp8: model S = 12 KiB ({3 * 64 * 64 + 12:,} bytes), largest tensor L = 4 KiB" in run.stdout
    assert last_record(folder)["benchmarks"][0]["extra_info"]["dtype"] == "float8_e4m3fn"


@pytest.mark.parametrize(
    ("model", "offline", "said"),
    [
        (
            "hub:acme/none",
            "0",
            "ERROR: --model: hub:acme/none: there is no such repository, or you may not read it",
        ),
        (
            "hub:acme/llama",
            "1",
            "ERROR: --model: hub:acme/llama: HF_HUB_OFFLINE is set, so nothing was fetched; uns",
        ),
    ],
)
def test_a_model_that_cannot_be_fetched_is_one_line(
    bench: Bench, folder: Path, hub: LocalHub, model: str, offline: str, said: str
) -> None:
    before = recorded(folder)
    run = bench("--model", model, *PLAN, env=hub.environment | {"HF_HUB_OFFLINE": offline})
    assert run.returncode == 4
    [line] = [one for one in (run.stdout + run.stderr).splitlines() if "ERROR" in one]
    assert line.startswith(said)
    assert recorded(folder) == before
