"""Work in the process of a rank: it joins its group, and loads its part of the model."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.measure.load_process import CachedOutputs, Check, rehearse, run_load
from bench.meters import device_meter
from bench.meters.child import Build
from bench.meters.clock import LoadClock
from bench.sharded.fake_collectives import simulated_ranks
from bench.sharded.rank_context import RankContext, mesh_of
from model.checkpoints.checkpoint import Checkpoint
from model.examine.trust import UntrustedCheckpoint
from model.parallel.division import Division
from model.verification.verify import check_model

# A recipe of the table of sharded strategies: `(build, path, device, parallelize)`, and `dtype` of a cast.
Recipe = Callable[..., nn.Module]


@dataclass(frozen=True)
class RankLoad:
    """A recipe, called as others are: what it divides the model with is that of a rank's group."""

    recipe: Recipe
    context: RankContext
    division: Division

    def __call__(self, build: Build, path: Path, device: torch.device, **keywords: Any) -> nn.Module:
        mesh = mesh_of(device.type, self.context.count)
        with simulated_ranks(self.context.rank, self.context.store) if self.context.simulated else nullcontext():
            try:
                return self.recipe(build, path, device, lambda model: self.division.apply(model, mesh), **keywords)
            # Raised in all ranks by `torch.distributed.checkpoint` for what some ran into, and no `Exception`.
            except BaseException as error:
                if failures := getattr(error, "failures", None):
                    raise _own_failure(failures, self.context.rank) from error
                raise


class AnotherRankFailed(Exception):
    """A load ended in this rank since it did in another one."""


def _own_failure(failures: Mapping[int, tuple[Exception, object]], rank: int) -> Exception:
    """Return this rank's exception, of those of all ranks; if it has none, one that says that another rank failed."""
    return failures[rank][0] if rank in failures else AnotherRankFailed(f"rank {min(failures)} failed")


def rehearse_rank(
    load: RankLoad, checkpoint: Checkpoint, rehearsal: Checkpoint, check: Check, device: torch.device
) -> None:
    """Take the rank's place, and load a small checkpoint first. Raises `UntrustedCheckpoint`, see `require_same`."""
    load.context.join(device)
    require_same(load.context, checkpoint)
    user_model = checkpoint.specification.user_model
    build = checkpoint.specification.build if user_model else None
    rehearse(replace(load, division=load.division.of_any_model), rehearsal, check, None, build, device)


def require_same(context: RankContext, checkpoint: Checkpoint) -> None:
    """Raise `UntrustedCheckpoint` if this rank's checkpoint is not that of rank 0: ranks may be on several machines."""
    seen = checkpoint.identity()
    if seen is None:
        return
    store = context.store()
    if context.rank == 0:
        store.set("identity", seen)
    elif (other := store.get("identity").decode()) != seen:
        name = checkpoint.specification.name
        reason = f"is another {name} than rank 0 sees: SHA-256 {seen[:12]}, there {other[:12]}"
        raise UntrustedCheckpoint(checkpoint.path, None, reason)


def rank_clock(device: str, load: RankLoad, checkpoint: Checkpoint, rehearsal: Checkpoint) -> LoadClock:
    """Return the clock that times the load in one rank; all begin a round together, since they are asked together."""
    meter = device_meter(device)
    rehearse_rank(load, checkpoint, rehearsal, check_model, meter.device)
    cached = CachedOutputs(checkpoint, meter.device)
    return LoadClock(
        load=partial(run_load, load, checkpoint),
        use=cached.use,
        check=cached.check,
        meter=meter,
        prepare=partial(_line_up, meter.device),
        asks_again=False,
    )


def _line_up(device: torch.device) -> None:
    """Wait for the other ranks: what they did for the round before is not to be timed."""
    torch.distributed.barrier(device_ids=[device.index or 0] if device.type == "cuda" else None)
