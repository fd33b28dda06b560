"""Runs of a model that transformers wrote into a folder: its user writes no code."""

import json
from pathlib import Path

import pytest

from bench.conftest import Bench, Measure, last_record
from bench.measure.case import Case
from bench.measure.expected import blank_record
from model.user.from_options import user_model

transformers = pytest.importorskip("transformers", minversion="5", reason="it builds the models")


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    """All of its tensors are in its checkpoint, so that every strategy loads it."""
    sizes = {"vocab_size": 2000, "d_model": 64, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2}
    config = transformers.T5Config(**sizes, dtype="bfloat16")
    transformers.T5ForConditionalGeneration._from_config(config).save_pretrained(folder / "my own t5")
    return folder / "my own t5"


def test_a_folder_is_measured_and_its_outputs_are_compared(bench: Bench, folder: Path, model: Path) -> None:
    run = bench("--model", str(model), "--strategies", "streamed", "--device", "cpu", "-k", "peak_memory or load_time")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "my own t5: model S = " in run.stdout
    assert "without an example" not in run.stdout
    assert "Least memory: streamed" in run.stdout
    [memory, time] = (one["extra_info"] for one in last_record(folder)["benchmarks"])
    for record in (memory, time):
        assert (record["model"], record["size"]) == ("my own t5/config.json", "my own t5")
        assert (record["dtype"], record["layout"], record["first_use"]) == ("bfloat16", "safetensors", "logits")
    assert time["first_logits_seconds"] > 0
    assert str(folder) not in json.dumps(last_record(folder))


def test_a_configuration_alone_is_planned(load: Measure, folder: Path, model: Path) -> None:
    (folder / "alone").mkdir()
    (folder / "alone" / "config.json").write_bytes((model / "config.json").read_bytes())
    alone = user_model(str(folder / "alone"), None, None, None)
    case = Case("streamed", alone.label, "sim", alone.dtype, planned=True, user_model=alone)
    assert load(case).device.requested_bytes == blank_record(case).state_bytes
