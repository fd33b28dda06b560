"""Whether two values are equal to the bit: tensors on any device, NaNs and infinities included."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from model.foreign import Digest

# What is compared at once, in elements: of a tensor on a device no more is copied to the host, where memory may be
# short.
COMPARED = 2**20


def same_value(one: Any, other: Any) -> bool:
    """Whether two values are equal, of the same types, and in what tensors they hold to the bit."""
    (leaves, structure), (others, other_structure) = tree_flatten(one), tree_flatten(other)
    return structure == other_structure and all(map(_same_leaf, leaves, others))


def _same_leaf(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return difference(one, other) is None
    return type(one) is type(other) and bool(one == other)


def is_on(tensor: Tensor, device: torch.device) -> bool:
    """Tell if a tensor is on a device, or on any of its kind if the device has no index."""
    return tensor.device.type == device.type and device.index in (None, tensor.device.index)


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
    first, differing = None, 0
    for start in range(0, loaded.numel(), COMPARED):
        found, expected = (flat[start : start + COMPARED].cpu() for flat in (loaded, saved))
        if _same_bits(found, expected):
            continue
        wrong = (found.view(torch.uint8) != expected.view(torch.uint8)).view(-1, expected.element_size()).any(1)
        differing += int(wrong.sum())
        if first is None:
            place = int(wrong.int().argmax())
            first = f"first at flat index {start + place:,}: {found[place].item()}, saved as {expected[place].item()}"
    return f"differs in {differing:,} of {loaded.numel():,} values, {first}" if differing else None


def _same_bits(one: Tensor, other: Tensor) -> bool:
    # As integers, which compare equal where NaNs do not; as wide ones where that is possible, for they are faster.
    bits = torch.int64 if _can_be_wide(one) and _can_be_wide(other) else torch.uint8
    return torch.equal(one.view(bits), other.view(bits))


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
    """Its values one after the other, where it is; copied, to the host, only where they do not lie so already."""
    contiguous = tensor.detach()
    if not contiguous.is_contiguous():
        contiguous = contiguous.cpu().contiguous()
    # Not `view(-1)`: a tensor of one element is contiguous whatever its stride, and keeps it.
    return contiguous.as_strided((contiguous.numel(),), (1,))


def _can_be_wide(flat: Tensor) -> bool:
    width = torch.int64.itemsize
    return flat.nbytes % width == 0 and flat.storage_offset() * flat.element_size() % width == 0
