import pytest
import torch

from model import weights
from model.gpt2 import SIZES, first_logits
from model.weights import random_gpt2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_tensor_is_random_and_the_logits_are_finite(dtype: torch.dtype) -> None:
    model = random_gpt2(SIZES["tiny"], dtype, seed=1)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == dtype, name
        assert parameter.float().std().item() == pytest.approx(0.02, rel=0.3), name
        assert parameter.count_nonzero() > 0.99 * parameter.numel(), name
    for mask in model.buffers():
        assert torch.equal(mask, torch.ones(1024, 1024).triu(1))
    assert first_logits(model).isfinite().all()


def test_no_two_tensors_have_the_same_values() -> None:
    """A tensor that was loaded into another's place must not pass."""
    model = random_gpt2(SIZES["tiny"], torch.float32, seed=1)
    assert len({tuple(p.flatten()[:8].tolist()) for p in model.parameters()}) == len(list(model.parameters()))


def test_values_depend_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def values(seed: int) -> torch.Tensor:
        return random_gpt2(SIZES["tiny"], torch.float32, seed).out_head.weight

    expected = values(1)
    monkeypatch.setattr(weights, "cpu_count", lambda: 1)
    assert torch.equal(values(1), expected)
    assert not torch.equal(values(2), expected)


def test_every_tensor_has_a_storage_of_its_own() -> None:
    """A checkpoint in which all tensors share one storage would load in one piece."""
    model = random_gpt2(SIZES["tiny"], torch.bfloat16, seed=1)
    for name, tensor in model.state_dict().items():
        assert tensor.untyped_storage().nbytes() == tensor.nbytes, name
        assert tensor.data_ptr() % 64 == 0, name


def test_progress_is_told_of_every_byte_filled() -> None:
    told: list[int] = []
    model = random_gpt2(SIZES["tiny"], torch.float32, 1, told.append)
    assert sum(told) == sum(p.nbytes for p in model.parameters())
