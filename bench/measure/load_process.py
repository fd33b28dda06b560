"""Steps in the process of a load: preparation, the load itself, and its timing."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from inspect import signature
from typing import cast
from weakref import WeakKeyDictionary

import torch
from torch import nn

from bench.meters import device_meter
from bench.meters.child import Build
from bench.meters.clock import LoadClock
from bench.meters.roofline import DISK, Roofline, direct_is_faster
from bench.strategies import Load
from bench.strategies.reading.skeleton import skeleton
from model.architecture import DTYPES
from model.checkpoints.checkpoint import Checkpoint
from model.examine.trust import UntrustedCheckpoint, examine
from model.gpt2 import GPT2, Config, first_logits
from model.layouts.foreign import FOREIGN
from model.values.outputs import ModelSnapshot
from model.verification.verify import check_outputs, check_weights

# Raises if a model, the third argument, is not that of a checkpoint, on a device; see `check_model`.
Check = Callable[..., None]


class CachedOutputs:
    """Keeps the outputs of a model's last forward pass, so that checking them takes no further pass.

    They go with the model: on a device they would be memory that the load seems to keep.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self._checkpoint, self._device = checkpoint, device
        self._outputs = WeakKeyDictionary[nn.Module, list[torch.Tensor]]()
        self._changed = set(checkpoint.reference_outputs().changed)

    def use(self, model: nn.Module) -> None:
        """Run a forward pass, and undo what it is known to change: the weights of a checkpoint are those before it."""
        state = ModelSnapshot(model, self._changed) if self._changed else None
        try:
            outputs = self._checkpoint.specification.architecture.outputs(model)
        except Exception:
            # A weight without a value is what it fails for, if there is one.
            check_weights(self._checkpoint, self._device, model)
            raise
        if state:
            # What it returns may be what it has changed.
            outputs = [output.clone() for output in outputs]
            state.restore()
        self._outputs[model] = outputs

    def of(self, model: nn.Module) -> list[torch.Tensor]:
        """Return the outputs of its last forward pass."""
        return self._outputs[model]

    def check(self, model: nn.Module, *, told: bool = False) -> None:
        """Raise `WrongModel` unless every tensor of the model, and the last outputs, are those that were saved."""
        check_weights(self._checkpoint, self._device, model, told=told)
        check_outputs(self._checkpoint, self._outputs[model])


def load_clock(
    device: str, load: Load, checkpoint: Checkpoint, limit: Roofline, rehearse: Callable[[torch.device], object]
) -> LoadClock:
    """Rehearse the load, then return the clock that times it beside its limit."""
    meter = device_meter(device)
    rehearse(meter.device)
    cached = CachedOutputs(checkpoint, meter.device)
    if limit.kind != DISK:
        # What reads a file and fills memory first takes longer than what does so again.
        limit.prepare()
    elif "direct" in signature(load).parameters:
        load = partial(cast("Callable[..., nn.Module]", load), direct=direct_is_faster(limit.files))
    return LoadClock(
        load=partial(run_load, load, checkpoint),
        use=cached.use,
        check=cached.check,
        meter=meter,
        prepare=limit.prepare,
        outputs=cached.of,
    )


def run_load(
    load: Load, checkpoint: Checkpoint, device: torch.device, noted: Callable[[Build], Build] | None = None
) -> nn.Module:
    """Return the loaded model; `noted` is given what builds it, and returns what is called instead.

    Raises `UntrustedCheckpoint` instead of what `load` raised if the checkpoint is at fault.
    """
    try:
        build, keywords = checkpoint.specification.build, checkpoint.specification.keywords
        return load(noted(build) if noted else build, checkpoint.path, device, **keywords)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        _diagnose(checkpoint, error)
        raise


def _diagnose(checkpoint: Checkpoint, error: Exception) -> None:
    """Raise `UntrustedCheckpoint` if the checkpoint is why a load failed with `error`."""
    specification = checkpoint.specification
    expected = specification.saved_state
    try:
        # What a library of its own wrote, only that can read.
        if specification.layout not in FOREIGN:
            examine(specification.layout, checkpoint.path, expected)
        checkpoint.require_unchanged()
    except UntrustedCheckpoint as untrusted:
        raise untrusted from error


def rehearse(  # noqa: PLR0913, PLR0917 - what differs is known beforehand, the device in the process of the load
    load: Load,
    rehearsal: Checkpoint,
    check: Check,
    config: Config | None,
    build: Build | None,
    device: torch.device,
) -> None:
    """Load a small checkpoint first, and whatever else a load is not to be charged for.

    `config` is that of the model whose kernels a real device is to have loaded, `build` makes the user's model.
    """
    check(rehearsal, device, run_load(load, rehearsal, device))
    if build is not None:
        # What it imports when it is built for the first time. If it has no skeleton, strategies will say so.
        with suppress(Exception):
            skeleton(build)
    if config is not None:
        # A device's libraries load their kernels, and its driver its staging buffers, for the shapes that come.
        with device:
            model = GPT2(
                replace(config, layers=1), DTYPES[rehearsal.specification.cast or rehearsal.specification.dtype]
            )
        first_logits(model)
        model.out_head.weight.detach().cpu().to(device)
