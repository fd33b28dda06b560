"""Plans of loads by other projects' libraries: the peaks that are counted are those that the same load has."""

from pathlib import Path

import pytest

from bench.conftest import Measure
from bench.measure.case import Case
from bench.measure.terms import host_slack_bytes
from model.user.from_options import user_model

CODE = """
import torch
from torch import nn

class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(4000, 1024)
        self.layers = nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(6)))
        self.norm = nn.BatchNorm1d(1024)

def wide():
    return Wide()

def llama():
    from transformers import LlamaConfig, LlamaForCausalLM
    sizes = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 2, "vocab_size": 8000}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=8))
"""

LOADS = {
    "safetensors": ("wide", ("safetensors",)),
    "safetensors_load_model": ("wide", ("safetensors",)),
    "accelerate": ("wide", ("safetensors", "accelerate")),
    "transformers": ("llama", ("safetensors", "accelerate", "transformers")),
}


@pytest.mark.parametrize("device", ["sim", "cpu"])
@pytest.mark.parametrize("name", LOADS)
def test_a_plan_counts_what_the_load_takes(tmp_path: Path, load: Measure, name: str, device: str) -> None:
    model, libraries = LOADS[name]
    for library in libraries:
        pytest.importorskip(library)
    (tmp_path / "mine.py").write_text(CODE)
    mine = user_model(f"{tmp_path / 'mine.py'}:{model}", None, None, None)
    measured, planned = (
        load(Case(name, model, device, mine.dtype, planned=planned, user_model=mine)) for planned in (False, True)
    )
    assert planned.device == measured.device
    footprint = Case(name, model, device, mine.dtype, user_model=mine).specification.footprint
    assert (planned.device.requested_bytes is None) == (device == "cpu")
    assert (planned.device.requested_bytes or footprint.state_bytes) >= footprint.state_bytes
    slack = host_slack_bytes(footprint.state_bytes, footprint.tensors)
    assert planned.host.private_bytes is not None
    assert planned.host.file_bytes is not None
    if measured.host.private_bytes is None or measured.host.file_bytes is None:
        pytest.skip("this system does not tell private from file-backed memory")
    # A plan counts what is asked for. Its context moves each weight to meta before anything is written to it.
    untouched = footprint.largest_tensor_bytes if name == "accelerate" else 0
    assert -slack <= planned.host.private_bytes - measured.host.private_bytes <= slack + untouched
    assert planned.host.file_bytes == pytest.approx(measured.host.file_bytes, abs=slack)
