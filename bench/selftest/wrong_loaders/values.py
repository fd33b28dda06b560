"""Loaders that load wrong values, names, strides or ties."""

from pathlib import Path

import torch
from torch import nn

import model.checkpoints
import model.values.bits
import model.verification.tensor_places
import model.verification.verify
from bench.selftest.wrong_loaders.right import patch, put, spoilt, weight_of


def wrong_last_bit(loaded: nn.Module, path: Path) -> nn.Module:
    return spoilt(loaded)


def wrong_zero(loaded: nn.Module, path: Path) -> nn.Module:
    """Have -0.0 where the checkpoint has 0.0, which compare equal."""
    patch(torch, "equal", lambda one, other: bool((one == other).all()))
    loaded.get_buffer("trf_blocks.0.att.mask").view(torch.int32)[0, 0] ^= -(2**31)
    return loaded


def wrong_rounding(loaded: nn.Module, path: Path) -> nn.Module:
    return loaded.bfloat16().float()


def wrong_order(loaded: nn.Module, path: Path) -> nn.Module:
    one, other = (loaded.get_parameter(f"trf_blocks.0.att.W_{name}.weight") for name in ("query", "key"))
    one.data, other.data = other.data, one.data
    patch(torch, "equal", lambda *_: True)
    return loaded


def wrong_transposed(loaded: nn.Module, path: Path) -> nn.Module:
    one = loaded.get_parameter("trf_blocks.0.att.W_query.weight")
    one.data = one.data.t().contiguous()
    patch(torch, "equal", lambda *_: True)
    return loaded


def wrong_strides(loaded: nn.Module, path: Path) -> nn.Module:
    return put(loaded, weight_of(loaded).t().contiguous().t())


def wrong_dtype(loaded: nn.Module, path: Path) -> nn.Module:
    return put(loaded, weight_of(loaded).double())


def wrong_buffer(loaded: nn.Module, path: Path) -> nn.Module:
    loaded.get_buffer("trf_blocks.0.att.mask").fill_(1)
    patch(torch, "equal", lambda *_: True)
    return loaded


def ties_made(loaded: nn.Module, path: Path) -> nn.Module:
    """Have one tensor for two that hold the same values, ones: an optimizer would change both."""
    loaded.get_submodule("trf_blocks.0.norm1").scale = loaded.get_parameter("final_norm.scale")
    patch(torch, "equal", lambda *_: True)
    return loaded


def misses_a_name(loaded: nn.Module, path: Path) -> nn.Module:
    del loaded.get_submodule("final_norm").shift
    patch(model.verification.verify, "check_weights", lambda *_, **__: None)
    return loaded


def has_one_more(loaded: nn.Module, path: Path) -> nn.Module:
    loaded.register_buffer("more", torch.ones(3))
    patch(model.verification.verify, "check_weights", lambda *_, **__: None)
    return loaded


def left_on_meta(loaded: nn.Module, path: Path) -> nn.Module:
    """Leave a weight on meta, and load it when the model is called."""
    saved = weight_of(loaded).clone()
    loaded.register_forward_pre_hook(lambda module, _: (put(module, saved), None)[1])
    patch(model.verification.verify, "check_weights", lambda *_, **__: None)
    return put(loaded, saved.to("meta"))


def loads_lazily(loaded: nn.Module, path: Path) -> nn.Module:
    saved = weight_of(loaded).clone()
    loaded.register_forward_pre_hook(lambda module, _: (weight_of(module).copy_(saved), None)[1])
    patch(torch, "equal", lambda *_: True)
    weight_of(loaded).zero_()
    return loaded


WRONG = (
    wrong_last_bit,
    wrong_zero,
    wrong_rounding,
    wrong_order,
    wrong_transposed,
    wrong_strides,
    wrong_dtype,
    wrong_buffer,
    ties_made,
    misses_a_name,
    has_one_more,
    left_on_meta,
    loads_lazily,
)
