"""Division of a GPT-2 among ranks: by FSDP2, or by tensor parallelism."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from torch import nn

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

# The dimension along which a parameter is divided, by its name; None: every rank has all of it, as a distributed
# tensor. Every rank has all of a parameter that is not named, as a plain tensor.
Dimensions = Mapping[str, int | None]
# Names of tensors that are divided together, in that order.
Units = Sequence[Sequence[str]]

COLUMNS, ROWS = "columns", "rows"

# Of the linear layers of a block: by output, or by input features, as in https://arxiv.org/abs/1909.08053.
TENSOR_PLAN = {
    "att.W_query": COLUMNS,
    "att.W_key": COLUMNS,
    "att.W_value": COLUMNS,
    "att.out_proj": ROWS,
    "ff.layers.0": COLUMNS,
    "ff.layers.2": ROWS,
}


def blocks(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules of a model in a list or a sequence, by their names: each is sharded as one."""
    return {
        f"{path}.{name}".lstrip("."): child
        for path, module in model.named_modules()
        if isinstance(module, nn.Sequential | nn.ModuleList) and path.count(".") == 0
        for name, child in module.named_children()
    }


def fully_sharded(model: nn.Module, mesh: "DeviceMesh") -> nn.Module:
    """Shard a model with FSDP2, block by block, then the rest."""
    from torch.distributed.fsdp import fully_shard  # noqa: PLC0415 - it takes a second

    for block in blocks(model).values():
        fully_shard(block, mesh=mesh)
    return cast("nn.Module", fully_shard(model, mesh=mesh))


def fully_sharded_dimensions(model: nn.Module) -> Dimensions:
    return {name: 0 for name, _ in model.named_parameters()}


def fully_sharded_units(model: nn.Module) -> Units:
    """Return the names of each block, buffers included, then all others."""
    names = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]
    units = [[name for name in names if name.startswith(f"{path}.")] for path in blocks(model)]
    inside = {name for unit in units for name in unit}
    return [*units, [name for name in names if name not in inside]]


def tensor_parallel(model: nn.Module, mesh: "DeviceMesh") -> nn.Module:
    """Divide the linear layers of the blocks of a model, and its embedding and head unless they are tied."""
    from torch.distributed.tensor import Replicate  # noqa: PLC0415 - it takes a second
    from torch.distributed.tensor.parallel import (  # noqa: PLC0415
        ColwiseParallel,
        RowwiseParallel,
        parallelize_module,
    )

    styles: dict[str, Callable[[str], Any]] = {
        # The code of an attention counts its heads, and needs all of them.
        COLUMNS: lambda name: ColwiseParallel(output_layouts=None if "ff." in name else Replicate()),
        ROWS: lambda name: RowwiseParallel(input_layouts=None if "ff." in name else Replicate()),
    }
    plan: dict[str, Any] = {
        f"{path}.{name}": styles[style](name) for path in blocks(model) for name, style in TENSOR_PLAN.items()
    }
    if not is_tied(model):
        plan["tok_emb"] = RowwiseParallel(input_layouts=Replicate())
        plan["out_head"] = ColwiseParallel(output_layouts=Replicate())
    # Every rank has the same values, or none yet: nothing has to be sent.
    return parallelize_module(model, mesh, plan, src_data_rank=None)


def tensor_parallel_dimensions(model: nn.Module) -> Dimensions:
    """Return the dimension of each divided parameter; an embedding is divided along its vocabulary."""
    found: dict[str, int | None] = {}
    for path in blocks(model):
        for name, style in TENSOR_PLAN.items():
            found[f"{path}.{name}.weight"] = 0 if style == COLUMNS else 1
            found[f"{path}.{name}.bias"] = 0 if style == COLUMNS else None
    return found if is_tied(model) else {**found, "tok_emb.weight": 0, "out_head.weight": 0}


def tensor_parallel_units(model: nn.Module) -> Units:
    """Return each divided parameter as a unit."""
    return [[name] for name in tensor_parallel_dimensions(model)]


def is_tied(model: nn.Module) -> bool:
    """Return whether a parameter has several names."""
    return len(list(model.parameters())) < len(list(model.named_parameters(remove_duplicate=False)))


@dataclass(frozen=True)
class Parallelism:
    """A way to divide a model: `apply(model, mesh)` divides it, `dimensions(model)` has the dimension for each name.

    `units(model)` are moved to the device and divided, one after the other. `pads`: smaller shards are copied to the
    size of the largest.
    """

    apply: "Callable[[nn.Module, DeviceMesh], nn.Module]"
    dimensions: Callable[[nn.Module], Dimensions]
    units: Callable[[nn.Module], Units]
    pads: bool


PARALLELISMS = {
    "fsdp": Parallelism(fully_sharded, fully_sharded_dimensions, fully_sharded_units, pads=True),
    "tensor": Parallelism(tensor_parallel, tensor_parallel_dimensions, tensor_parallel_units, pads=False),
}
