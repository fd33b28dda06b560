"""Files that are mapped in a plan, where there are no bytes to map: `torch.load` maps some, safetensors' reader others.

That reader is not Python. It has PyTorch map the file, and makes tensors of its parts by calls that are heard like all
others. But to a GPU it copies by addresses, into page-locked memory: at those of a plan nothing lies.
"""

import weakref
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from torch import Tensor

from bench.meters.simulated.ledger import MappedPages, Storage
from bench.meters.simulated.simulated_device import SimulatedDevice, meta_storage


class PlannedFile:
    """A file that `torch.load` maps: its parts have sizes."""

    def __init__(self, world: SimulatedDevice) -> None:
        self._world = world

    def __getitem__(self, part: slice) -> Storage:
        return meta_storage(part.stop - part.start)

    def untyped(self) -> "MappedFile":
        """Return the file as safetensors' reader asks for it."""
        return MappedFile(self._world)


class MappedFile:
    """A file that safetensors' reader maps: whatever is made of a part of it, its pages are those of the file."""

    def __init__(self, world: SimulatedDevice) -> None:
        self._world = world
        self._mapping = new_mapping(world)

    def __getitem__(self, part: slice) -> Storage:
        storage = meta_storage(part.stop - part.start)
        self._world.ledger.mapped(storage, self._mapping)
        return storage

    def data_ptr(self) -> int:
        """End a copy by addresses before it begins. Raises `CopiedByAddress`."""
        raise CopiedByAddress


class CopiedByAddress(Exception):
    """The error that ends a copy by safetensors' reader into page-locked memory, past PyTorch."""


def new_mapping(world: SimulatedDevice) -> MappedPages:
    """Return the pages of a new mapped file, which leave the ledger when it is gone."""
    mapping = MappedPages([])
    weakref.finalize(mapping, world.ledger.unmapped, mapping.touched).atexit = False
    return mapping


def reader_replacements() -> list[tuple[object, str, Callable[..., Any]]]:
    """Return the replacements of safetensors' reader in a plan; none if it is not installed."""
    if find_spec("safetensors") is None:
        return []
    from safetensors import safe_open  # noqa: PLC0415 - of an extra

    get_tensor = safe_open.get_tensor

    def get_planned_tensor(file: Any, name: str) -> Tensor:
        try:
            tensor: Tensor = get_tensor(file, name)
        except CopiedByAddress:
            # The page-locked memory was taken, and is free again.
            tensor = file.get_slice(name)[...]
        return tensor

    def get_planned_tensors(file: Any) -> dict[str, Tensor]:
        return {name: get_planned_tensor(file, name) for name in file.offset_keys()}

    # Earlier versions have no call for all of them.
    every = [(safe_open, "get_tensors", get_planned_tensors)] if hasattr(safe_open, "get_tensors") else []
    return [(safe_open, "get_tensor", get_planned_tensor), *every]
