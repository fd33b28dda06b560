"""Bitwise comparison of tensors on any device, NaNs and infinities included, and of containers of tensors."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from model.digest import TensorDigest

# Elements that are compared at once: no more of a tensor on a device is copied to the host, where memory may be short.
COMPARED = 2**20


def same_value(one: Any, other: Any) -> bool:
    """Return whether two values have the same types and are equal, tensors in them to the bit."""
    (leaves, structure), (others, other_structure) = tree_flatten(one), tree_flatten(other)
    return structure == other_structure and all(map(_same_leaf, leaves, others))


def _same_leaf(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return difference(one, other) is None
    return type(one) is type(other) and bool(one == other)


def is_on(tensor: Tensor, device: torch.device) -> bool:
    """Return whether a tensor is on a device, or on any of its kind if the device has no index."""
    return tensor.device.type == device.type and device.index in (None, tensor.device.index)


def difference_in_kind(loaded: Tensor, saved: Tensor | TensorDigest, was: str = "saved") -> str | None:
    """Return the difference in dtype or shape between a loaded tensor and the saved one; None if there is none."""
    if loaded.dtype != saved.dtype:
        return f"is {loaded.dtype}, {was} as {saved.dtype}"
    if loaded.shape != saved.shape:
        return f"has shape {list(loaded.shape)}, {was} as {list(saved.shape)}"
    return None


def difference(loaded: Tensor, saved: Tensor | TensorDigest) -> str | None:
    """Return the difference between a loaded tensor and the saved one; None if they are equal to the bit.

    Of a distributed tensor, the part of this process is compared with the same part of the saved tensor. If only a
    digest was saved, the tensor is gathered: then all processes have to call this.
    """
    if difference := difference_in_kind(loaded, saved):
        return difference
    if hasattr(loaded, "device_mesh"):
        loaded, saved = _parts(loaded, saved)
    if isinstance(saved, TensorDigest):
        return None if TensorDigest.of(loaded) == saved else "differs from what was saved, by its SHA-256"
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


def _parts(loaded: Any, saved: Tensor | TensorDigest) -> tuple[Tensor, Tensor | TensorDigest]:
    """Return the part of a distributed tensor that this process has, and that part of the saved one."""
    if isinstance(saved, TensorDigest):
        return loaded.full_tensor(), saved
    # It takes a second to import; a process with such tensors has done so.
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset  # noqa: PLC0415

    shape, offset = compute_local_shape_and_global_offset(loaded.shape, loaded.device_mesh, loaded.placements)
    part = tuple(slice(start, start + size) for start, size in zip(offset, shape, strict=True))
    with torch.no_grad():
        return loaded.to_local(), saved[part]


def _flat(tensor: Tensor) -> Tensor:
    """Return the values in one dimension; copied, to the host, only if they are not contiguous."""
    contiguous = tensor.detach()
    if not contiguous.is_contiguous():
        contiguous = contiguous.cpu().contiguous()
    # Not `view(-1)`: a tensor of one element is contiguous whatever its stride, and keeps it.
    return contiguous.as_strided((contiguous.numel(),), (1,))


def _can_be_wide(flat: Tensor) -> bool:
    width = torch.int64.itemsize
    return flat.nbytes % width == 0 and flat.storage_offset() * flat.element_size() % width == 0
