"""Computes on the CPU what a kernel was to compute, in the memory of the device."""

import threading
from typing import Any

import torch

from bench.meters.driver.sent import Computation, tensors_in

aten = torch.ops.aten

# Random numbers come from one generator.
_drawing = threading.Lock()


def compute(one: Computation) -> Any:
    """Do `one`, whose tensors are all on the CPU; return what has no place in it to be written to.

    Raises what PyTorch raises.
    """
    if one.seed is None:
        return _compute(one)
    with _drawing:
        torch.manual_seed(one.seed)
        return _compute(one)


def _compute(one: Computation) -> Any:
    if one.results is not None and one.name.startswith("_scaled_dot_product"):
        one.results[0].copy_(_attention(one))
        return None
    result = getattr(getattr(aten, one.name), one.overload)(*one.args, **one.kwargs)
    if one.results is None:
        return result
    for to, value in zip(tensors_in(one.results), tensors_in(result), strict=True):
        # What kernels keep for the backward pass may have another shape on the CPU.
        if to.numel() and to.shape == value.shape:
            to.copy_(value)
    return None


def _attention(one: Computation) -> torch.Tensor:
    """Return the output of an attention, whose kernels on a device have no counterpart on the CPU."""
    schema = getattr(getattr(aten, one.name), one.overload)._schema  # noqa: SLF001 - it has no public name
    given = dict(zip((argument.name for argument in schema.arguments), one.args, strict=False)) | one.kwargs
    math = aten._scaled_dot_product_attention_math  # noqa: SLF001 - an operation of aten like others
    return math(
        *(given[name] for name in ("query", "key", "value")),
        given.get("attn_bias", given.get("attn_mask")),
        0.0,
        given.get("is_causal", False),
        scale=given.get("scale"),
    )[0]
