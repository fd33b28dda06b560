"""Planned loads: of a case, and of its alternatives (a cast, other devices)."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from bench.measure.case import Case
from bench.measure.jobs import load_job
from bench.meters.allocator_settings import AllocatorSettings
from bench.meters.measure import Measurement, measure
from bench.meters.simulated.allocator import CachingAllocator
from model.architecture import DTYPES
from model.casting import cast_dtypes, retyped
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.making import make_sparse
from model.run_folder import run_folder

HALF = "bfloat16"


def plan(case: Case) -> Measurement:
    """Measure a planned load of a case: nothing is read or filled. Raises `LoadEnded` where it cannot be planned."""
    planned = replace(case, planned=True, device="cpu" if case.kind.is_host else "sim")
    with TemporaryDirectory(prefix="plan-", dir=run_folder()) as folder:
        checkpoint, rehearsal = (
            _sparse(Checkpoint(specification, Path(folder) / f"{number}-{specification.name}"))
            for number, specification in enumerate((planned.specification, planned.rehearsal))
        )
        return measure(load_job(planned, planned.strategy.load, checkpoint, rehearsal), planned.timeout_seconds)


def _sparse(checkpoint: Checkpoint) -> Checkpoint:
    make_sparse(checkpoint.specification, checkpoint.folder)
    return checkpoint


def halved(case: Case) -> Case | None:
    """Return the same case, cast to half as many bytes; None where it ends in as few already."""
    if (case.cast or case.dtype) != "float32":
        return None
    return replace(case, cast=HALF, user_model=replace(case.user_model, cast=HALF) if case.user_model else None)


def reserved_bytes(sizes: Iterable[int]) -> int:
    """Return the bytes that PyTorch's allocator takes of a device for tensors of these sizes, and nothing else."""
    allocator = CachingAllocator(AllocatorSettings())
    for size in filter(None, sizes):
        allocator.allocate(size)
    return allocator.reserved_bytes


def largest_block(case: Case) -> tuple[str, int]:
    """Return name and bytes of the largest part that is run as a whole; parts of a sequence count one by one."""
    model, to = case.specification.architecture.skeleton(), DTYPES.get(case.cast)
    sizes = {name: _bytes(block, to) for name, block in _blocks(model, "")}
    largest = max(sizes, key=lambda name: sizes[name])
    return largest, sizes[largest]


def _blocks(module: nn.Module, path: str, *, in_sequence: bool = False) -> list[tuple[str, nn.Module]]:
    """Return the parts of a model that are run one after another: entries of sequences, and what stands beside those.

    What is in a sequence is a block, whatever it has inside, unless it is a sequence itself.
    """
    found = []
    for name, child in module.named_children():
        inner = f"{path}.{name}".lstrip(".")
        if isinstance(child, nn.Sequential | nn.ModuleList):
            found += _blocks(child, inner, in_sequence=True)
        elif isinstance(child, nn.ModuleDict) or (not in_sequence and _has_sequence(child)):
            found += _blocks(child, inner, in_sequence=in_sequence)
        else:
            found.append((inner, child))
    return found or [(path, module)]


def _has_sequence(module: nn.Module) -> bool:
    return any(isinstance(one, nn.Sequential | nn.ModuleList) and len(one) > 1 for one in module.modules())


def _bytes(module: nn.Module, to: torch.dtype | None) -> int:
    state_dict = module.state_dict()
    ends = retyped(state_dict, cast_dtypes(state_dict, to))
    tensors = [value for value in ends.values() if isinstance(value, Tensor)]
    return sum({tensor.untyped_storage(): tensor.untyped_storage().nbytes() for tensor in tensors}.values())
