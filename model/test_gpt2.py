import pytest
import torch

from model.checkpoints.specification import Specification
from model.gpt2 import GPT2, SIZES, first_logits


@pytest.mark.parametrize(
    ("size", "parameters", "tensors", "state_bytes", "largest_tensor_bytes"),
    [
        ("small", 163_037_184, 209, 702_480_384, 154_389_504),
        ("medium", 406_286_336, 413, 1_725_808_640, 205_852_672),
        ("large", 838_359_040, 617, 3_504_431_104, 257_315_840),
        ("xl", 1_638_022_400, 821, 6_753_416_192, 321_644_800),
    ],
)
def test_sizes(size: str, parameters: int, tensors: int, state_bytes: int, largest_tensor_bytes: int) -> None:
    """The byte counts of the notebook's models, which every bound is made of."""
    with torch.device("meta"):
        model = GPT2(SIZES[size])
    footprint = Specification(size, "float32", "torch").footprint
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert footprint.tensors == tensors
    assert footprint.state_bytes == state_bytes
    assert footprint.largest_tensor_bytes == largest_tensor_bytes


def test_state_dict_has_the_names_of_the_book() -> None:
    with torch.device("meta"):
        model = GPT2(SIZES["tiny"])
    block = {
        "att.mask",
        *(f"att.{p}.{kind}" for p in ("W_query", "W_key", "W_value", "out_proj") for kind in ("weight", "bias")),
        *(f"ff.layers.{place}.{kind}" for place in (0, 2) for kind in ("weight", "bias")),
        *(f"norm{place}.{kind}" for place in (1, 2) for kind in ("scale", "shift")),
    }
    outside = {"tok_emb.weight", "pos_emb.weight", "final_norm.scale", "final_norm.shift", "out_head.weight"}
    assert set(model.state_dict()) == outside | {f"trf_blocks.{n}.{name}" for n in (0, 1) for name in block}


def test_mask_stays_float32_in_a_half_precision_model() -> None:
    state_dict = Specification("tiny", "bfloat16", "torch").build().state_dict()
    assert {name for name, tensor in state_dict.items() if tensor.dtype == torch.float32} == {
        "trf_blocks.0.att.mask",
        "trf_blocks.1.att.mask",
    }
    assert {tensor.dtype for tensor in state_dict.values()} == {torch.float32, torch.bfloat16}


@torch.inference_mode()
def test_no_token_sees_a_later_one() -> None:
    model = GPT2(SIZES["tiny"]).eval()
    one, other = model(torch.tensor([[1, 2, 3]])), model(torch.tensor([[1, 2, 4]]))
    torch.testing.assert_close(one[:, :2], other[:, :2])
    assert not torch.allclose(one[:, 2], other[:, 2])


@pytest.mark.parametrize("garbage", [0.0, float("nan")])
def test_a_mask_that_was_not_loaded_changes_the_logits(garbage: float) -> None:
    """Uninitialised masks must not pass for loaded ones."""
    model = GPT2(SIZES["tiny"])
    right = first_logits(model)
    for mask in model.buffers():
        mask.fill_(garbage)
    assert not torch.allclose(first_logits(model), right)


def test_first_logits_are_those_of_evaluation_without_gradients() -> None:
    model = GPT2(SIZES["tiny"]).train()
    logits = first_logits(model)
    assert logits.shape == (1, 3, 50257)
    assert not logits.requires_grad
    assert not model.training
