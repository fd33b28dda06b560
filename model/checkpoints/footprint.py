"""Sizes of a model's and a checkpoint's tensors, from which bounds are computed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from model.architecture import DTYPES, Architecture
from model.casting import Dtypes, cast_dtypes, retyped
from model.examine.pickle_objects import SavedTensor
from model.examine.shard_index import shards
from model.examine.trust import READERS
from model.state_dict import without
from model.user.source import Source


@dataclass(frozen=True)
class Footprint:
    """Bytes of a model's tensors when they are loaded: S and L of every bound."""

    state_bytes: int
    largest_tensor_bytes: int
    # Bytes of every storage, in the order of the state dict.
    sizes: tuple[int, ...]
    # Bytes of buffers that are in no state dict.
    nonpersistent_bytes: int

    @property
    def tensors(self) -> int:
        return len(self.sizes)


@dataclass(frozen=True)
class SavedFootprint:
    """Bytes of the same tensors in the checkpoint, and while a cast converts some of them.

    `converted` are storages that a cast converts: the bytes of each as saved, and after the cast. `built_bytes` is the
    most that the model takes of the host if it is built and cast there, one tensor after the other.
    """

    checkpoint_bytes: int
    largest_bytes: int
    largest_file_bytes: int
    # Of mapped pages of the files, at most.
    mapped_bytes: int
    built_bytes: int
    # Of the saved tensors after the cast.
    ends_bytes: int
    converted: tuple[tuple[int, int], ...]

    @property
    def converted_bytes(self) -> int:
        return sum(saved for saved, _ in self.converted)

    @property
    def converted_to_bytes(self) -> int:
        return sum(ends for _, ends in self.converted)

    @property
    def largest_converted_bytes(self) -> int:
        return max((saved for saved, _ in self.converted), default=0)

    @property
    def largest_converted_to_bytes(self) -> int:
        return max((ends for _, ends in self.converted), default=0)

    @property
    def largest_conversion_bytes(self) -> int:
        """Bytes of one tensor as saved, and of its converted copy if there is one, at most."""
        return max((self.largest_bytes, *map(sum, self.converted)))


@cache
def footprint(architecture: Architecture, to: str) -> Footprint:
    """Return the footprint of a model whose weights end in the dtype `to` of `DTYPES`; "": as it is built."""
    model = architecture.skeleton()
    built = model.state_dict()
    ends = retyped(built, cast_dtypes(built, DTYPES.get(to)))
    tensors = [value for value in ends.values() if isinstance(value, Tensor)]
    storages = dict.fromkeys(tensor.untyped_storage() for tensor in tensors)
    sizes = tuple(storage.nbytes() for storage in storages)
    held = {value.untyped_storage() for value in built.values() if isinstance(value, Tensor)}
    # Parameters too, where a module's own code leaves them out of its state dict.
    nonpersistent = {one.untyped_storage() for one in (*model.buffers(), *model.parameters())} - held
    return Footprint(
        sum(sizes), max(tensor.nbytes for tensor in tensors), sizes, sum(storage.nbytes() for storage in nonpersistent)
    )


@cache
def saved_footprint(  # noqa: PLR0913, PLR0917 - all that decides what is in it
    architecture: Architecture, dtypes: Dtypes, missing: tuple[str, ...], to: str, layout: str, in_place: Source | None
) -> SavedFootprint:
    """Return the footprint of a checkpoint in a layout, or of the user's checkpoint `in_place`.

    `dtypes` are those that differ from the model's, `missing` names that the checkpoint lacks.
    """
    built = without(architecture.skeleton().state_dict(), missing)
    saved = retyped(built, dict(dtypes))
    ends = retyped(built, cast_dtypes(built, DTYPES.get(to)))
    tensors = [name for name, value in saved.items() if isinstance(value, Tensor)]
    alike = [[state[name].untyped_storage() for name in tensors] for state in (built, saved, ends)]
    storages = dict(zip(zip(*alike, strict=True), tensors, strict=True))
    held = peak = sum(as_built.nbytes() for as_built, _, _ in storages)
    for (as_built, _, as_ends), name in storages.items():
        if built[name].dtype != ends[name].dtype:
            peak = max(peak, held + as_ends.nbytes())
            held += as_ends.nbytes() - as_built.nbytes()
    files = _files(layout, in_place, saved, DTYPES.get(to))
    return SavedFootprint(
        checkpoint_bytes=sum(as_saved.nbytes() for _, as_saved, _ in storages),
        largest_bytes=max((saved[name].nbytes for name in tensors), default=0),
        largest_file_bytes=max(size for size, _ in files),
        mapped_bytes=_most_mapped(files),
        built_bytes=peak,
        ends_bytes=sum(as_ends.nbytes() for _, _, as_ends in storages),
        converted=tuple(
            (as_saved.nbytes(), as_ends.nbytes())
            for (_, as_saved, as_ends), name in storages.items()
            if saved[name].dtype != ends[name].dtype
        ),
    )


def _files(
    layout: str, in_place: Source | None, saved: Mapping[str, Any], to: torch.dtype | None
) -> list[tuple[int, bool]]:
    """Return for each file the bytes of its tensors, and whether a load keeps any of them unconverted."""
    files = []
    for part in files_of(layout, in_place, saved):
        tensors = [one for one in part.values() if isinstance(one, Tensor | SavedTensor)]
        sizes = dict(map(_storage, tensors))
        stays = any(to in {None, one.dtype} or not one.dtype.is_floating_point for one in tensors)
        files.append((sum(sizes.values()), stays))
    return files


def files_of(layout: str, in_place: Source | None, saved: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what each file of a checkpoint in a layout has, or of the user's checkpoint `in_place`, by its names."""
    if not layout.endswith("_sharded"):
        return [saved]
    return list(READERS[layout](in_place.path, False).values() if in_place else shards(dict(saved)))


def _storage(tensor: Tensor | SavedTensor) -> tuple[object, int]:
    """Return a key that is equal for tensors that share memory, and the bytes of that memory."""
    if isinstance(tensor, SavedTensor):
        return tensor.storage, tensor.storage.bytes
    return tensor.untyped_storage(), tensor.untyped_storage().nbytes()


def _most_mapped(files: Iterable[tuple[int, bool]]) -> int:
    """Return the most bytes mapped at once if files are mapped in turn and dropped when all was converted."""
    kept = most = 0
    for size, stays in files:
        most = max(most, kept + size)
        kept += size if stays else 0
    return most
