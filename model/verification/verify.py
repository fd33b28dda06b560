"""Check that a loaded model equals the saved one: every bit of every tensor, and its outputs."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from model.architecture import DTYPES
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.specification import Specification
from model.digest import TensorDigest
from model.layouts.foreign import FOREIGN
from model.state_dict import first_names
from model.values.bits import difference, difference_in_kind, is_on, same_value
from model.values.initial_values import uninitialised
from model.values.nonpersistent import wrong_nonpersistent
from model.values.outputs import difference_in_outputs


class WrongModel(Exception):
    """A loaded model differs from its checkpoint; the message names the tensor and what is wrong with it."""


def check_model(checkpoint: Checkpoint, device: torch.device, model: nn.Module, *, told: bool = False) -> None:
    """Raise `WrongModel` unless `model` is on `device`, and equal to `checkpoint` in every tensor and its logits.

    `told`: its values were compared from outside, see `outside_judge`, and are not compared again. Raises
    `UntrustedCheckpoint` if a file of the checkpoint has changed since it was found to be sound.
    """
    check_weights(checkpoint, device, model, told=told)
    check_outputs(checkpoint, checkpoint.specification.architecture.outputs(model))


def check_weights(checkpoint: Checkpoint, device: torch.device, model: nn.Module, *, told: bool = False) -> None:
    """Check a model without its outputs. Each process checks its part of a distributed tensor."""
    checkpoint.require_unchanged()
    _check_tensors(checkpoint, device, model, difference_in_kind if told else difference)
    for name, wrong in uninitialised(model, checkpoint.initial_values()):
        raise WrongModel(f"{name} {wrong}")
    if wrong_buffer := wrong_nonpersistent(model, checkpoint.nonpersistent_digests(), checkpoint.specification.build):
        raise WrongModel(f"{wrong_buffer} is in no checkpoint, and has other values than the model is built with")


def check_outputs(checkpoint: Checkpoint, outputs: list[Tensor]) -> None:
    """Raise `WrongModel` for outputs that differ from those of the saved model, where they can be compared."""
    if wrong := checkpoint.reference_outputs().difference(outputs):
        raise WrongModel(wrong)
    checkpoint.require_unchanged()


def check_structure(checkpoint: Checkpoint, device: torch.device, model: nn.Module) -> None:
    """Check a model without its values: the device, name, dtype and shape of every tensor."""
    checkpoint.require_unchanged()
    _check_tensors(checkpoint, device, model, difference_in_kind)


def _check_tensors(
    checkpoint: Checkpoint, device: torch.device, model: nn.Module, difference: Callable[[Tensor, Any], str | None]
) -> None:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if not is_on(tensor, device):
            raise WrongModel(f"{name} is on {tensor.device}, not on {device}")
    specification = checkpoint.specification
    loaded, saved, to = model.state_dict(), dict(checkpoint.tensors()), DTYPES.get(specification.cast)
    # The digests of a foreign layout do not tell which names are tied.
    named = specification.architecture.skeleton().state_dict() if specification.layout in FOREIGN else saved
    firsts, saved_firsts = first_names(loaded), first_names(named)
    for name, tensor in saved.items():
        if name not in loaded:
            raise WrongModel(f"{name} is in the checkpoint, but not in the model")
        if isinstance(tensor, Tensor | TensorDigest):
            if differing := difference(loaded[name], _cast(tensor, to)):
                raise WrongModel(f"{name} {differing.replace('saved as', 'by the cast') if to else differing}")
        elif not same_value(loaded[name], tensor):
            raise WrongModel(f"{name} is {loaded[name]!r}, saved as {tensor!r}")
        if firsts[name] != firsts[saved_firsts[name]]:
            raise WrongModel(f"{name} was one tensor with {saved_firsts[name]}, and is by itself")
    _check_missing(checkpoint.specification, loaded)
    # One saved name of a tied tensor is enough.
    held = {firsts[name] for name in (*saved, *checkpoint.specification.missing)}
    if unexpected := [name for name, first in firsts.items() if first not in held]:
        raise WrongModel(f"{min(unexpected)} is in the model, but not in the checkpoint")


def _cast(tensor: Tensor | TensorDigest, to: torch.dtype | None) -> Tensor | TensorDigest:
    return tensor.to(to) if to and isinstance(tensor, Tensor) and tensor.is_floating_point() else tensor


def _check_missing(specification: Specification, loaded: Mapping[str, Any]) -> None:
    """Raise `WrongModel` unless a model has the tensors that its checkpoint lacks, with the ties of a new model."""
    if not specification.missing:
        return
    made, to = specification.architecture.skeleton().state_dict(), DTYPES.get(specification.cast)
    firsts, made_firsts = first_names(loaded), first_names(made)
    for name in specification.missing:
        if name not in loaded:
            raise WrongModel(f"{name} is not in the model")
        if firsts[name] != firsts[made_firsts[name]]:
            raise WrongModel(f"{name} was one tensor with {made_firsts[name]}, and is by itself")
        if isinstance(made[name], Tensor) and (
            wrong := difference_in_kind(loaded[name], _cast(made[name], to), "made")
        ):
            raise WrongModel(f"{name} {wrong}")


def check_logits(logits: Tensor, saved: Tensor) -> None:
    """Raise `WrongModel` for logits that differ from the saved ones by more than rounding."""
    if wrong := difference_in_outputs([logits], [saved]):
        raise WrongModel(wrong)
