from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from bench.selftest import decoder
from bench.selftest.decoder import BLOCKS, PLAN, Decoder
from model.gpt2 import CONFIGS, GPT2
from model.parallel.division import Division
from model.parallel.tensor_plan import divided_layers, divides_heads, plan_of, tensor_parallel_dimensions
from model.user.reference import Reference

OWN = Reference("bench.selftest.decoder:PLAN")
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj")


def brings(plan: Any, model: nn.Module | None = None) -> nn.Module:
    """A model that brings a plan."""
    model = model or Decoder()
    model.tp_plan = plan
    return model


def test_a_plan_is_the_users_or_the_models() -> None:
    assert plan_of(Decoder(), None) == {}
    assert plan_of(Decoder(), OWN) == PLAN
    assert plan_of(brings({"head": "colwise"}), None) == {"head": "colwise"}
    assert plan_of(brings({"head": "colwise"}), OWN) == PLAN
    assert set(plan_of(GPT2(CONFIGS["rehearsal"]), None)) > {"tok_emb", "out_head"}


@pytest.mark.parametrize("name", ["PLAN", "torch_plan"])
def test_layers_are_found_by_patterns_whatever_the_styles_are(name: str) -> None:
    reference = Reference(f"bench.selftest.decoder:{name}")
    found = divided_layers(Decoder(), reference)
    assert set(found) == {f"blocks.{number}.{layer}" for number in range(BLOCKS) for layer in LAYERS}
    dimensions = tensor_parallel_dimensions(Decoder(), reference)
    assert [dimensions[f"blocks.1.{name}"] for name in ("q_proj.weight", "q_proj.bias")] == [0, 0]
    assert [dimensions[f"blocks.1.{name}"] for name in ("down_proj.weight", "down_proj.bias")] == [1, None]
    assert Division("tensor", tp_plan=reference).objection(Decoder(), 2) is None


def test_what_is_tied_stays_whole() -> None:
    model = brings({"embedding": "embedding_rowwise", "head": "colwise_gather_output", "blocks.0.up_proj": "colwise"})
    assert list(divided_layers(model, None)) == ["blocks.0.up_proj"]


def test_an_embedding_is_divided_by_its_vocabulary_or_by_its_width() -> None:
    plan = {"a": "embedding_rowwise", "b": "embedding_colwise"}
    model = brings(plan, nn.ModuleDict({"a": nn.Embedding(6, 4), "b": nn.Embedding(6, 4)}))
    assert tensor_parallel_dimensions(model, None) == {"a.weight": 0, "b.weight": 1}


def test_what_a_model_brings_may_be_for_other_sizes_of_it() -> None:
    """Models of experts have no layers of the others."""
    assert list(divided_layers(brings({"blocks.*.gate_proj": "colwise", "blocks.0.up_proj": "colwise"}), None)) == [
        "blocks.0.up_proj"
    ]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (
            {"blocks.*.query": "colwise"},
            "the plan names 'blocks.*.query', which the model does not have; choose from embedding, blocks.0.q_proj, "
            "blocks.0.k_proj, blocks.0.v_proj and others",
        ),
        (
            {"blocks.0.q_proj": "columns"},
            "the plan gives blocks.0.q_proj the style 'columns', which PyTorch does not have; choose from colwise,"
            " rowwise, colwise_gather_output, colwise_rep, rowwise_split_input, rowwise_rep, "
            "embedding_rowwise, embedding_colwise",
        ),
        (
            {"blocks.0.norm": "colwise"},
            "the plan divides blocks.0.norm, which is a LayerNorm; leave it out: PyTorch divides nn.Linear "
            "and nn.Embedding",
        ),
        (
            {"blocks.0.q_proj.weight": "colwise"},
            "the plan divides blocks.0.q_proj.weight, which is a parameter; leave it out: PyTorch divides "
            "nn.Linear and nn.Embedding",
        ),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused_in_a_line(
    plan: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "PLAN", plan)
    with pytest.raises(ValueError, match=r"the plan|names no module") as caught:
        divided_layers(Decoder(), OWN)
    assert str(caught.value) == message
    objection = Division("tensor", tp_plan=OWN).objection(Decoder(), 2)
    assert objection == f"{message}; use --parallelism fsdp, or give another plan with --tp-plan"


@pytest.mark.parametrize("plan", [{}, [], None, 3, {1: "colwise"}])
def test_what_is_no_plan_is_refused_in_a_line(plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "PLAN", plan)
    with pytest.raises(
        ValueError, match=r"^bench\.selftest\.decoder:PLAN is of type \w+, and not a plan; write a dict"
    ):
        plan_of(Decoder(), OWN)


def with_config(**counts: int) -> nn.Module:
    model = brings(PLAN)
    model.config = SimpleNamespace(**counts)  # type: ignore[assignment]
    return model


@pytest.mark.parametrize(
    ("model", "ranks", "expected"),
    [
        (brings(PLAN), 4, None),
        (brings(PLAN), 16, None),
        (
            brings(PLAN),
            3,
            "3 ranks cannot divide the 16 rows of blocks.0.q_proj.weight evenly; give --ranks a divisor of that",
        ),
        (
            brings({"blocks.*.o_proj": "rowwise"}),
            32,
            "32 ranks cannot divide the 16 columns of blocks.0.o_proj.weight evenly; give --ranks a divisor of that",
        ),
        # Each rank has the outputs of all.
        (brings({"blocks.*.q_proj": "colwise_gather_output", "blocks.*.o_proj": "rowwise_split_input"}), 3, None),
        (with_config(num_attention_heads=4, num_key_value_heads=2), 2, None),
        (
            with_config(num_attention_heads=4, num_key_value_heads=2),
            4,
            "4 ranks cannot divide 2 heads (num_key_value_heads) evenly; give --ranks a divisor of that",
        ),
        (
            with_config(num_attention_heads=4),
            8,
            "8 ranks cannot divide 4 heads (num_attention_heads) evenly; give --ranks a divisor of that",
        ),
    ],
)
def test_ranks_that_cannot_share_a_layer_are_told_in_a_line(model: nn.Module, ranks: int, expected: str | None) -> None:
    assert Division("tensor").objection(model, ranks) == expected


def test_only_what_follows_a_plan_has_a_dimension() -> None:
    with torch.device("meta"):
        model = GPT2(CONFIGS["tiny"])
    found = tensor_parallel_dimensions(model, None)
    assert not any("norm" in name or "mask" in name for name in found)
    assert found["tok_emb.weight"] == found["out_head.weight"] == 0


def test_a_cache_is_divided_where_keys_and_values_are() -> None:
    assert divides_heads(Decoder(), OWN)
    assert divides_heads(brings(PLAN), None)
    assert not divides_heads(Decoder(), None)
    assert not divides_heads(brings({"blocks.*.q_proj": "colwise", "blocks.*.o_proj": "rowwise"}), None)
    # Each rank has those of all heads.
    assert not divides_heads(brings({"blocks.*.k_proj": "colwise_gather_output"}), None)
