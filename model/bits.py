"""Whether two values are equal to the bit: tensors on any device, NaNs and infinities included."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from model.foreign import Digest


def same_value(one: Any, other: Any) -> bool:
    """Whether two values are equal, of the same types, and in what tensors they hold to the bit."""
    (leaves, structure), (others, other_structure) = tree_flatten(one), tree_flatten(other)
    return structure == other_structure and all(map(_same_leaf, leaves, others))


def _same_leaf(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return difference(one, other) is None
    return type(one) is type(other) and bool(one == other)


def difference_in_kind(loaded: Tensor, saved: Tensor | Digest, was: str = "saved") -> str | None:
    """What is wrong with the dtype or the shape of a loaded tensor."""
    if loaded.dtype != saved.dtype:
        return f"is {loaded.dtype}, {was} as {saved.dtype}"
    if loaded.shape != saved.shape:
        return f"has shape {list(loaded.shape)}, {was} as {list(saved.shape)}"
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
