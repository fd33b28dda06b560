"""The computation, on the CPU and in the memory of the device, of what a kernel was to compute."""

import threading
from collections.abc import Callable
from typing import Any

import torch

from bench.meters.driver.sent import Computation, replaced, tensors_in

aten = torch.ops.aten

# Random numbers come from one generator.
_drawing = threading.Lock()


def compute(one: Computation) -> Any:
    """Compute `one`, whose tensors are all on the CPU; return the results that have no place to be written to."""
    if one.seed is None:
        return _compute(one)
    with _drawing:
        torch.manual_seed(one.seed)
        return _compute(one)


def _compute(one: Computation) -> Any:
    if one.results is not None and (other := _counterpart(one.name)):
        # Results for the backward pass are left out.
        for to, value in zip(one.results, other(**_named(one)), strict=False):
            to.copy_(value)
        return None
    result = _called(one)
    if one.results is None:
        return result
    values = [result] if len(one.results) == 1 else result or ()
    for places, found in zip(one.results, values, strict=True):
        # None: it is written to an argument.
        for to, value in zip(tensors_in(places), tensors_in(found) if places is not None else [], strict=True):
            # Results for the backward pass may have another shape on the CPU.
            if to.numel() and to.shape == value.shape:
                to.copy_(value)
    return None


def _called(one: Computation) -> Any:
    function = getattr(getattr(aten, one.name), one.overload)
    try:
        return function(*one.args, **one.kwargs)
    except RuntimeError as error:
        # A write to the argument would go to a copy of it.
        in_place = one.results is None or not one.results or any(place is None for place in one.results)
        if in_place or "not implemented for" not in str(error):
            raise
    # The CPU has it for other dtypes, which hold the same values.
    args, kwargs = (replaced(part, torch.Tensor, _widened) for part in (one.args, one.kwargs))
    return function(*args, **kwargs)


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.dtype == torch.bool or tensor.is_complex():
        return tensor
    return tensor.float() if tensor.is_floating_point() else tensor.double()


def _counterpart(name: str) -> Callable[..., tuple[torch.Tensor, ...]] | None:
    """Return a function that computes the results of a kernel which the CPU has not; it takes the same arguments."""
    if name.startswith("_scaled_dot_product"):
        return _attention
    if name in ("_conv_depthwise2d", "conv_depthwise3d"):
        return _depthwise
    return {"_thnn_fused_lstm_cell": _lstm_cell, "_thnn_fused_gru_cell": _gru_cell}.get(name)


def _named(one: Computation) -> dict[str, Any]:
    schema = getattr(getattr(aten, one.name), one.overload)._schema  # noqa: SLF001 - it has no public name
    return dict(zip((argument.name for argument in schema.arguments), one.args, strict=False)) | one.kwargs


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **others: Any) -> tuple[torch.Tensor]:
    mask, causal = others.get("attn_bias", others.get("attn_mask")), others.get("is_causal", False)
    math = aten._scaled_dot_product_attention_math  # noqa: SLF001 - an operation of aten like others
    # Several heads of a query may share one of the keys.
    options = {"scale": others.get("scale"), "enable_gqa": query.shape[1] != key.shape[1]}
    return (math(query, key, value, mask, 0.0, causal, **options)[0],)


def _depthwise(**given: Any) -> tuple[torch.Tensor]:
    """Return a convolution of every channel by itself."""
    groups, stride = given["self"].shape[1], given["stride"]
    where = (stride, given["padding"], given["dilation"], False, [0] * len(stride), groups)
    return (aten.convolution(given["self"], given["weight"], given["bias"], *where),)


def _lstm_cell(
    input_gates: torch.Tensor,
    hidden_gates: torch.Tensor,
    cx: torch.Tensor,
    input_bias: torch.Tensor | None = None,
    hidden_bias: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the hidden state and the cell state, as `torch.nn.LSTMCell` defines them; gates are (batch, 4 * width)."""
    gates = _biased(input_gates, input_bias) + _biased(hidden_gates, hidden_bias)
    into, forget, cell, out = gates.chunk(4, 1)
    cy = forget.sigmoid() * cx + into.sigmoid() * cell.tanh()
    return out.sigmoid() * cy.tanh(), cy


def _gru_cell(
    input_gates: torch.Tensor,
    hidden_gates: torch.Tensor,
    hx: torch.Tensor,
    input_bias: torch.Tensor | None = None,
    hidden_bias: torch.Tensor | None = None,
) -> tuple[torch.Tensor]:
    """Return the hidden state, as `torch.nn.GRUCell` defines it; gates are (batch, 3 * width)."""
    input_reset, input_update, input_new = _biased(input_gates, input_bias).chunk(3, 1)
    hidden_reset, hidden_update, hidden_new = _biased(hidden_gates, hidden_bias).chunk(3, 1)
    update = (input_update + hidden_update).sigmoid()
    new = (input_new + (input_reset + hidden_reset).sigmoid() * hidden_new).tanh()
    return ((1 - update) * new + update * hx,)


def _biased(gates: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return gates if bias is None else gates + bias
