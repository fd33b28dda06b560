"""Tests of non-persistent buffers: wrong values are found, and correct ones pass."""

import torch
from torch import nn

from model.values.nonpersistent import nonpersistent_digests, wrong_nonpersistent


class Rotary(nn.Module):
    def __init__(self, seed: float = 1.0) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.register_buffer("inv_freq", torch.arange(1, 4) / 3 * seed, persistent=False)
        self.register_buffer("positions", torch.arange(3), persistent=False)


def drawn() -> nn.Module:
    return Rotary(float(torch.rand(())))


def test_a_buffer_with_other_values_or_without_any_is_found() -> None:
    known = nonpersistent_digests(Rotary(), None)
    assert wrong_nonpersistent(Rotary(), known, Rotary) is None
    for wrong in (torch.zeros(3), torch.arange(1, 4).bfloat16() / 3, torch.empty(3, device="meta")):
        model = Rotary()
        model.register_buffer("inv_freq", wrong, persistent=False)
        assert wrong_nonpersistent(model, known, Rotary) == "inv_freq"


def test_a_cast_of_the_whole_model_may_round_it() -> None:
    known = nonpersistent_digests(Rotary(), torch.bfloat16)
    assert wrong_nonpersistent(Rotary(), known, Rotary) is None
    assert wrong_nonpersistent(Rotary().to(torch.bfloat16), known, Rotary) is None
    assert wrong_nonpersistent(Rotary().to(torch.float16), known, Rotary) == "inv_freq"


def test_what_is_another_each_time_the_model_is_built_is_nobodys_fault() -> None:
    known = nonpersistent_digests(drawn(), None)
    assert wrong_nonpersistent(drawn(), known, drawn) is None
