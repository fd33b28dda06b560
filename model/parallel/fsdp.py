"""Division by FSDP2: block by block, then the rest, every parameter along its first dimension."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from model.casting import dtype_name
from model.parallel.blocks import Units, block_units, blocks, tied_across

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def fully_sharded(model: nn.Module, mesh: "DeviceMesh", wrap: Sequence[str]) -> nn.Module:
    """Shard a model with FSDP2, block by block, then the rest."""
    from torch.distributed.fsdp import fully_shard  # noqa: PLC0415 - it takes a second

    # Every rank has them whole: FSDP2 refuses to shard them.
    whole = {parameter for parameter in model.parameters() if not parameter.ndim}
    for block in blocks(model, wrap).values():
        fully_shard(block, mesh=mesh, ignored_params=whole)
    return cast("nn.Module", fully_shard(model, mesh=mesh, ignored_params=whole))


def fully_sharded_dimensions(model: nn.Module) -> Mapping[str, int]:
    """Return the dimension along which each parameter is divided, by its name."""
    return {name: 0 for name, parameter in model.named_parameters() if parameter.ndim}


def fully_sharded_units(model: nn.Module, wrap: Sequence[str]) -> Units:
    """Return the names of each block, buffers included, then all others."""
    whole = {name for name, parameter in model.named_parameters() if not parameter.ndim}
    return [[name for name in unit if name not in whole] for unit in block_units(model, blocks(model, wrap))]


def objection_to_sharding(model: nn.Module, wrap: Sequence[str], *, one_dtype: bool) -> str | None:
    """Return, in a line, why FSDP2 cannot shard a model; None if it can.

    `one_dtype`: its floating-point weights are cast to one.
    """
    return next(_objections(model, wrap, one_dtype=one_dtype), None)


def _objections(model: nn.Module, wrap: Sequence[str], *, one_dtype: bool) -> Iterator[str]:
    found = blocks(model, wrap)
    for name, parameter in model.named_parameters():
        if not parameter.is_contiguous():
            yield f"FSDP2 shards contiguous tensors only, and {name} has the strides {parameter.stride()}"
    if tied := tied_across(model, found):
        yield (
            f"FSDP2 would untie {tied[0]} and {tied[1]}, which are one tensor in two blocks; name with --wrap a class "
            "that has both in it, or neither"
        )
    if not one_dtype:
        yield from _mixed(model, fully_sharded_units(model, wrap))


def _mixed(model: nn.Module, units: Units) -> Iterator[str]:
    """Yield a line for each unit whose trained parameters have several dtypes: FSDP2 gathers them as one tensor."""
    parameters = dict(model.named_parameters())
    for unit in units:
        dtypes: dict[torch.dtype, str] = {}
        for name in unit:
            if name in parameters and parameters[name].requires_grad:
                dtypes.setdefault(parameters[name].dtype, name)
        if len(dtypes) > 1:
            listed = " and ".join(f"{name} in {dtype_name(dtype)}" for dtype, name in dtypes.items())
            yield f"FSDP2 gathers a block in one dtype, and one has {listed}; give it one with --cast bfloat16"
