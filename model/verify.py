"""Whether a loaded model is the model that was saved: every bit of every tensor, and what it computes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from model.checkpoints import Checkpoint
from model.foreign import Digest
from model.layouts import first_names

# How far the first logits may be from the saved ones, relative to the largest: the tensors are equal to the
# bit, but another device or another number of threads adds their products in another order.
LOGITS_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}


class WrongModel(Exception):
    """A loaded model differs from its checkpoint; the message names the tensor and what is wrong with it."""


def check_model(checkpoint: Checkpoint, device: torch.device, model: nn.Module) -> None:
    """Raise `WrongModel` unless `model` is on `device`, and equal to `checkpoint` in every tensor and its logits.

    Raises `UntrustedCheckpoint` if a file of the checkpoint was changed or replaced since it was found to be sound.
    """
    check_weights(checkpoint, device, model)
    check_outputs(checkpoint, checkpoint.specification.architecture.outputs(model))


def check_weights(checkpoint: Checkpoint, device: torch.device, model: nn.Module) -> None:
    """The same but for what it computes. Of a tensor that is divided among processes each one checks its part."""
    checkpoint.require_unchanged()
    _check_tensors(checkpoint, device, model, difference)


def check_outputs(checkpoint: Checkpoint, outputs: list[Tensor]) -> None:
    """Raise `WrongModel` unless a model has computed what the saved one did."""
    saved = checkpoint.outputs()
    if len(outputs) != len(saved):
        raise WrongModel(f"the model returns {len(outputs)} tensors, where the saved one returned {len(saved)}")
    for found, wanted in zip(outputs, saved, strict=True):
        check_logits(found.cpu(), wanted)
    checkpoint.require_unchanged()


def check_structure(checkpoint: Checkpoint, device: torch.device, model: nn.Module) -> None:
    """The same as far as it goes without values: where every tensor is, its name, dtype and shape."""
    checkpoint.require_unchanged()
    _check_tensors(checkpoint, device, model, difference_in_kind)


def _check_tensors(
    checkpoint: Checkpoint, device: torch.device, model: nn.Module, difference: Callable[[Tensor, Any], str | None]
) -> None:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.device.type != device.type:
            raise WrongModel(f"{name} is on {tensor.device}, not on {device}")
    loaded, saved = model.state_dict(), dict(checkpoint.tensors())
    firsts, saved_firsts = first_names(loaded), first_names(saved)
    for name, tensor in saved.items():
        if name not in loaded:
            raise WrongModel(f"{name} is in the checkpoint, but not in the model")
        if isinstance(tensor, Tensor | Digest):
            if differing := difference(loaded[name], tensor):
                raise WrongModel(f"{name} {differing}")
        elif not same_value(loaded[name], tensor):
            raise WrongModel(f"{name} is {loaded[name]!r}, saved as {tensor!r}")
        if firsts[name] != firsts[saved_firsts[name]]:
            raise WrongModel(f"{name} was one tensor with {saved_firsts[name]}, and is by itself")
    # Of a tensor with several names one may be saved.
    held = {firsts[name] for name in saved}
    if unexpected := [name for name, first in firsts.items() if first not in held]:
        raise WrongModel(f"{min(unexpected)} is in the model, but not in the checkpoint")


def same_value(one: Any, other: Any) -> bool:
    """Whether two values are equal, of the same types, and in what tensors they hold to the bit."""
    (leaves, structure), (others, other_structure) = tree_flatten(one), tree_flatten(other)
    return structure == other_structure and all(map(_same_leaf, leaves, others))


def _same_leaf(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return difference(one, other) is None
    return type(one) is type(other) and bool(one == other)


def difference_in_kind(loaded: Tensor, saved: Tensor | Digest) -> str | None:
    """What is wrong with the dtype or the shape of a loaded tensor."""
    if loaded.dtype != saved.dtype:
        return f"is {loaded.dtype}, saved as {saved.dtype}"
    if loaded.shape != saved.shape:
        return f"has shape {list(loaded.shape)}, saved as {list(saved.shape)}"
    return None


def difference(loaded: Tensor, saved: Tensor | Digest) -> str | None:
    """What is wrong with a loaded tensor; None if it is equal to the bit, NaNs included.

    Of one that is divided among processes, what this one has of it is held against the same part of what was saved; or
    it is gathered, where that is a digest of the whole: then all of them have to ask.
    """
    if difference := difference_in_kind(loaded, saved):
        return difference
    if hasattr(loaded, "device_mesh"):
        loaded, saved = _parts(loaded, saved)
    if isinstance(saved, Digest):
        return None if Digest.of(loaded) == saved else "differs from what was saved, by its SHA-256"
    loaded, saved = _flat(loaded), _flat(saved)
    # As integers, which compare equal where NaNs do not; as wide ones where that is possible, for they are faster.
    wide = _can_be_wide(loaded) and _can_be_wide(saved)
    bits = torch.int64 if wide else torch.uint8
    if torch.equal(loaded.view(bits), saved.view(bits)):
        return None
    wrong = (loaded.view(torch.uint8) != saved.view(torch.uint8)).view(-1, saved.element_size()).any(1)
    first = int(wrong.int().argmax())
    return (
        f"differs in {int(wrong.sum()):,} of {wrong.numel():,} values, first at flat index {first:,}: "
        f"{loaded[first].item()}, saved as {saved[first].item()}"
    )


def _parts(loaded: Any, saved: Tensor | Digest) -> tuple[Tensor, Tensor | Digest]:
    """What this process has of a distributed tensor, and that part of what was saved."""
    if isinstance(saved, Digest):
        return loaded.full_tensor(), saved
    # It takes a second to import; who has such tensors has done so.
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset  # noqa: PLC0415

    shape, offset = compute_local_shape_and_global_offset(loaded.shape, loaded.device_mesh, loaded.placements)
    part = tuple(slice(start, start + size) for start, size in zip(offset, shape, strict=True))
    with torch.no_grad():
        return loaded.to_local(), saved[part]


def _flat(tensor: Tensor) -> Tensor:
    """Its values one after the other, on the host; copied only where they do not lie so already."""
    contiguous = tensor.detach().cpu().contiguous()
    # Not `view(-1)`: a tensor of one element is contiguous whatever its stride, and keeps it.
    return contiguous.as_strided((contiguous.numel(),), (1,))


def _can_be_wide(flat: Tensor) -> bool:
    width = torch.int64.itemsize
    return flat.nbytes % width == 0 and flat.storage_offset() * flat.element_size() % width == 0


def check_logits(logits: Tensor, saved: Tensor) -> None:
    """Raise `WrongModel` unless what a model computes is what the saved one did, but for rounding."""
    if logits.shape != saved.shape or logits.dtype != saved.dtype:
        raise WrongModel(f"the first logits are {_described(logits)}, where the saved model's are {_described(saved)}")
    if not saved.is_floating_point():
        if not torch.equal(logits, saved):
            raise WrongModel(f"the first outputs, {_described(saved)}, are other ones")
        return
    largest = saved.abs().max().item() if saved.numel() else 0.0
    error = (logits.double() - saved.double()).abs().max().item() if saved.numel() else 0.0
    # Written so that NaN fails.
    if not error <= LOGITS_TOLERANCE.get(saved.dtype, 1e-3) * largest:
        raise WrongModel(f"the first logits are off by {error:.3g}, where the saved model's reach {largest:.3g}")


def _described(tensor: Tensor) -> str:
    return f"{tensor.dtype} of shape {list(tensor.shape)}"
