"""The ways to divide a model among ranks: FSDP2, and tensor parallelism."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import nn

from model.parallel.blocks import Units
from model.parallel.fsdp import fully_sharded, fully_sharded_dimensions, fully_sharded_units, objection_to_sharding
from model.parallel.tensor_plan import (
    objection_to_plan,
    tensor_parallel,
    tensor_parallel_dimensions,
)
from model.user.reference import Reference

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

FSDP, TENSOR = "fsdp", "tensor"
PARALLELISMS = (FSDP, TENSOR)


@dataclass(frozen=True)
class Division:
    """A way to divide a model: one of `PARALLELISMS`.

    `wrap` are the classes of its blocks, for `fsdp`; none: they are found. `tp_plan` names the plan, for `tensor`;
    None: the model brings it.
    """

    parallelism: str
    wrap: tuple[str, ...] = ()
    tp_plan: Reference | None = None

    @property
    def of_any_model(self) -> "Division":
        """The same way, without what the user says of a model."""
        return replace(self, wrap=(), tp_plan=None)

    @property
    def pads(self) -> bool:
        """True if smaller shards are copied to the size of the largest."""
        return self.parallelism == FSDP

    def apply(self, model: nn.Module, mesh: "DeviceMesh") -> nn.Module:
        """Divide a model among the ranks of a mesh, in place, and return it."""
        if self.parallelism == FSDP:
            return fully_sharded(model, mesh, self.wrap)
        return tensor_parallel(model, mesh, self.tp_plan)

    def dimensions(self, model: nn.Module) -> Mapping[str, int | None]:
        """Return the dimension along which each parameter is divided, by its name.

        None: every rank has all of it, as a distributed tensor. Of one that is not named it has all, as a plain tensor.
        """
        if self.parallelism == FSDP:
            return fully_sharded_dimensions(model)
        return tensor_parallel_dimensions(model, self.tp_plan)

    def units(self, model: nn.Module) -> Units:
        """Return the names of what is moved to the device and divided together, one group after the other."""
        if self.parallelism == FSDP:
            return fully_sharded_units(model, self.wrap)
        return [[name] for name in tensor_parallel_dimensions(model, self.tp_plan)]

    def objection(self, model: nn.Module, ranks: int, *, one_dtype: bool = False) -> str | None:
        """Return, in a line, why a model cannot be divided so; None if it can.

        `one_dtype`: its floating-point weights are cast to one.
        """
        if self.parallelism == FSDP:
            return objection_to_sharding(model, self.wrap, one_dtype=one_dtype)
        return objection_to_plan(model, self.tp_plan, ranks)


BY_FSDP = Division(FSDP)
