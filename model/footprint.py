"""What the tensors of a model and of its checkpoint take: all that bounds are computed from."""

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
from model.user.name_globs import without
from model.user.source import Source


@dataclass(frozen=True)
class Footprint:
    """What a model's tensors take when they are loaded: S and L of every bound."""

    state_bytes: int
    largest_tensor_bytes: int
    # Of every storage, in the order of the state dict.
    sizes: tuple[int, ...]
    # Of buffers that are in no state dict.
    beside_bytes: int

    @property
    def tensors(self) -> int:
        return len(self.sizes)


@dataclass(frozen=True)
class SavedFootprint:
    """What the same tensors take in the checkpoint, and while a cast converts some of them.

    `converted` are storages that are converted: the bytes of each as it is saved, and as it ends. `built_bytes` is what
    the model takes at most of the host where it is built, and cast there one tensor after the other.
    """

    checkpoint_bytes: int
    largest_bytes: int
    largest_file_bytes: int
    # Of pages of the files, where the host takes the weights from there.
    mapped_bytes: int
    built_bytes: int
    # Of what is in the checkpoint, as it ends.
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
        """One tensor as it is saved, and beside it as it ends if it is converted."""
        return max((self.largest_bytes, *map(sum, self.converted)))


@cache
def footprint(architecture: Architecture, to: str) -> Footprint:
    """That of a model whose weights end in the dtype `to`, of `DTYPES`; "": in the one that it is built with."""
    model = architecture.skeleton()
    built = model.state_dict()
    ends = retyped(built, cast_dtypes(built, DTYPES.get(to)))
    tensors = [value for value in ends.values() if isinstance(value, Tensor)]
    storages = dict.fromkeys(tensor.untyped_storage() for tensor in tensors)
    sizes = tuple(storage.nbytes() for storage in storages)
    held = {value.untyped_storage() for value in built.values() if isinstance(value, Tensor)}
    # And parameters, where a module's own code leaves them out of its state dict.
    beside = {one.untyped_storage() for one in (*model.buffers(), *model.parameters())} - held
    return Footprint(
        sum(sizes), max(tensor.nbytes for tensor in tensors), sizes, sum(storage.nbytes() for storage in beside)
    )


@cache
def saved_footprint(  # noqa: PLR0913, PLR0917 - all that decides what is in it
    architecture: Architecture,
    dtypes: Dtypes,
    missing: tuple[str, ...],
    to: str,
    layout: str,
    in_place: Source | None,
) -> SavedFootprint:
    """That of a checkpoint in a layout, or of the user's where it lies.

    It has `dtypes` that the model has not, and lacks names that are `missing`.
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
    """What the tensors in each file of a checkpoint take, and whether any of them stays as it is when it is loaded."""
    parts: Iterable[Iterable[Any]] = [saved.values()]
    if layout.endswith("_sharded"):
        read = READERS[layout](in_place.path, False).values() if in_place else shards(saved)
        parts = [part.values() for part in read]
    files = []
    for part in parts:
        tensors = [one for one in part if isinstance(one, Tensor | SavedTensor)]
        sizes = dict(map(_storage, tensors))
        stays = any(to in {None, one.dtype} or not one.dtype.is_floating_point for one in tensors)
        files.append((sum(sizes.values()), stays))
    return files


def _storage(tensor: Tensor | SavedTensor) -> tuple[object, int]:
    """What is equal for tensors that share memory, and its bytes."""
    if isinstance(tensor, SavedTensor):
        return tensor.storage, tensor.storage.bytes
    return tensor.untyped_storage(), tensor.untyped_storage().nbytes()


def _most_mapped(files: Iterable[tuple[int, bool]]) -> int:
    """What is mapped at most, if one file after the other is, and none stays of which everything was converted."""
    kept = most = 0
    for size, stays in files:
        most = max(most, kept + size)
        kept += size if stays else 0
    return most
