"""What the tensors of a model and of its checkpoint take: all that bounds are computed from."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor

from model.architecture import DTYPES, Architecture
from model.casting import Dtypes, cast_dtypes, retyped
from model.partial import without
from model.pickled import SavedTensor
from model.sharded import shards
from model.source import Source
from model.trust import READERS


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
    beside = {buffer.untyped_storage() for buffer in model.buffers()} - held
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
    return SavedFootprint(
        checkpoint_bytes=sum(as_saved.nbytes() for _, as_saved, _ in storages),
        largest_bytes=max((saved[name].nbytes for name in tensors), default=0),
        largest_file_bytes=_largest_file_bytes(layout, in_place, saved),
        built_bytes=peak,
        ends_bytes=sum(as_ends.nbytes() for _, _, as_ends in storages),
        converted=tuple(
            (as_saved.nbytes(), as_ends.nbytes())
            for (_, as_saved, as_ends), name in storages.items()
            if saved[name].dtype != ends[name].dtype
        ),
    )


def _largest_file_bytes(layout: str, in_place: Source | None, saved: Mapping[str, Any]) -> int:
    if layout.endswith("_sharded") and in_place:
        held = READERS[layout](in_place.path, False).values()
        storages = [{one.storage for one in part.values() if isinstance(one, SavedTensor)} for part in held]
        return max(sum(storage.bytes for storage in part) for part in storages)
    parts = [part.values() for part in (shards(saved) if layout.endswith("_sharded") else [saved])]
    memories = [{one.untyped_storage() for one in part if isinstance(one, Tensor)} for part in parts]
    return max(sum(memory.nbytes() for memory in part) for part in memories)
