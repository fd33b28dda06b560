"""Bytes of quantised and of divided models."""

from pathlib import Path

import pytest

from bench.measure.case import Case
from bench.measure.quantised import DivisibleBytes, divisible, quantised
from model.user.from_options import user_model

SMALL = Case("load_assign", "small", "sim", "float32", planned=True)
# Causal masks of twelve blocks.
MASKS = 12 * 4 * 1024**2
# Matrices of twelve blocks, and the head; embeddings, biases and norms stay.
LINEAR = 12 * 12 * 768**2 + 50257 * 768


def test_buffers_are_not_divided() -> None:
    found = divisible(SMALL)
    assert (found.divided, found.whole) == (702_480_384 - MASKS, MASKS)
    # What the allocator makes of small tensors comes on top of their bytes.
    mib = 2**20
    small = DivisibleBytes(100 * mib, 0, 100 * (mib,))
    assert (small.of_rank(64), small.reserved_of_rank(64)) == (100 * mib // 64, 2 * mib)
    assert DivisibleBytes(100, 10).reserved_of_rank(10) == 20
    assert divisible(SMALL).of_rank(1) == 702_480_384
    assert divisible(SMALL).of_rank(4) == (702_480_384 - MASKS) // 4 + MASKS


@pytest.mark.parametrize(("bits", "saved"), [(8, 3 * LINEAR), (4, 7 * LINEAR // 2)])
def test_linear_weights_are_quantised_and_others_stay(bits: int, saved: int) -> None:
    assert quantised(SMALL, bits).of_rank(1) == 702_480_384 - saved


FACTORY = """
import torch
from torch import nn

class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Parameter(torch.empty(4, 8, 16))
        self.bias = nn.Parameter(torch.empty(8))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(100, 16)
        self.positions = nn.Parameter(torch.empty(1, 32, 16))
        self.layers = nn.ModuleList([Experts(), Experts()])
        self.patches = nn.ModuleList([nn.Conv2d(3, 16, 2), nn.Embedding(10, 16)])
        self.tied = nn.Linear(16, 100, bias=False)
        self.tied.weight = self.embed.weight
        self.head = nn.Linear(16, 5)

    def get_output_embeddings(self):
        return self.tied

def net():
    return Net()
"""


def test_experts_are_quantised_and_what_shares_memory_with_an_embedding_is_not(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FACTORY)
    model = user_model(f"{tmp_path / 'mine.py'}:net", None, None, None)
    case = Case("load_assign", "net", "sim", "float32", planned=True, user_model=model)
    linear = 2 * 4 * 8 * 16 + 5 * 16
    assert quantised(case, 8).divided == divisible(case).divided - 3 * linear
