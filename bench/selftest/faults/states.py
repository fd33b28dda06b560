"""Faults of state dicts in sound archives: they differ from the model's."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.selftest.faults.fault import Fault, Inject, resaved

NAME = "trf_blocks.0.ff.layers.0.weight"  # [64, 16]
QUERY, KEY = "trf_blocks.0.att.W_query.weight", "trf_blocks.0.att.W_key.weight"


def _with(change: Callable[[Tensor], object]) -> Inject:
    return resaved(lambda state_dict: state_dict.update({NAME: change(state_dict[NAME])}))


def _renamed(state_dict: dict[str, Any]) -> None:
    state_dict[f"module.{NAME}"] = state_dict.pop(NAME)


def _saved_as(make: Callable[[dict[str, Any]], object]) -> Inject:
    return lambda path: torch.save(make(torch.load(path, weights_only=True)), path)


STATE_FAULTS = {
    "key missing": Fault(resaved(lambda state_dict: state_dict.pop(NAME)), "^is missing$", NAME),
    "buffer missing": Fault(
        resaved(lambda state_dict: state_dict.pop("trf_blocks.0.att.mask")), "^is missing$", "trf_blocks.0.att.mask"
    ),
    "key too many": Fault(
        resaved(lambda state_dict: state_dict.update({"stranger": torch.ones(3)})), "^is not in the model$", "stranger"
    ),
    "key renamed": Fault(resaved(_renamed), "^is missing$", NAME),
    "key that is no string": Fault(
        _saved_as(lambda state_dict: dict([*state_dict.items(), (7, torch.ones(3))])),
        "is a key of the state dict, but no string",
        "7",
    ),
    "row that would broadcast": Fault(
        _with(lambda tensor: tensor[:1].clone()), r"has the shape \[1, 16\], where the model has \[64, 16\]", NAME
    ),
    "number that would broadcast": Fault(_with(lambda _: torch.tensor(0.5)), r"has the shape \[\]", NAME),
    "as many values otherwise": Fault(_with(lambda tensor: tensor.view(16, 64)), r"has the shape \[16, 64\]", NAME),
    "dtype that would be cast": Fault(
        _with(lambda tensor: tensor.half()), r"is torch\.float16, where the model has torch\.float32", NAME
    ),
    "dtype of as many bits": Fault(_with(lambda tensor: tensor.view(torch.int32)), r"is torch\.int32", NAME),
    "other strides": Fault(_with(lambda tensor: tensor.t().contiguous().t()), r"with the strides \[1, 64\]", NAME),
    "expanded": Fault(_with(lambda tensor: tensor[:1].expand(64, 16)), r"with the strides \[0, 1\]", NAME),
    "no tensor": Fault(_with(lambda _: "weights"), "is a str, where the model has a tensor", NAME),
    "tied": Fault(
        resaved(lambda state_dict: state_dict.update({KEY: state_dict[QUERY]})),
        f"shares its memory with {QUERY}, where in the model it has its own memory",
        KEY,
    ),
    "list": Fault(_saved_as(lambda state_dict: list(state_dict.values())), "holds a list, not a state dict"),
    "tensor alone": Fault(_saved_as(lambda state_dict: state_dict[NAME]), "holds a tensor, not a state dict"),
    "state dict in a dict": Fault(
        _saved_as(lambda state_dict: {"model": state_dict}), "^is missing$", "tok_emb.weight"
    ),
}
