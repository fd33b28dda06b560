"""The places of all tensors while CUDA is simulated, for the interceptors to ask and to enter."""

import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.utils.weak import WeakIdKeyDictionary

from bench.meters.allocator_settings import AllocatorSettings
from bench.meters.host import read_pages
from bench.meters.simulated.allocator import CachingAllocator
from bench.meters.simulated.ledger import HOST, PINNED, Ledger, MappedPages, Storage, in_place
from bench.meters.simulated.peaks import DeviceBlocks
from bench.meters.simulated.pinned import PinnedMemory
from model.user.user_code import NotTheUsers

META = torch.device("meta")
CPU = torch.device("cpu")

_SEQUENCES = (list, tuple)
_PLAIN = frozenset((Tensor, torch.nn.Parameter))

# The place of what costs nothing.
SKELETON = "skeleton"


class NotSimulated(NotTheUsers):
    """The error of a load that needs values, or a GPU; the message names the line.

    It is no `Exception`: those are caught in many places, `load_state_dict` one of them, and forgotten.
    """


class SimulatedDevice:
    """The place of every tensor. In a plan the host's have no bytes."""

    def __init__(self, ledger: Ledger, settings: AllocatorSettings, *, planned: bool) -> None:
        self.ledger = ledger
        self.settings = settings
        self.planned = planned
        self.pinned_memory = PinnedMemory()
        # Gradients of the host of tensors on a device, which PyTorch refuses where one is on meta and the other is not.
        self.other_grads = WeakIdKeyDictionary()
        # Temporary memory of a copy is so short-lived that threads hardly ever overlap in it: here they never do.
        self.one_copy = threading.RLock()
        # The place that the call being made has named. Calls of other threads name their own.
        self._thread = threading.local()
        self._free_handles: list[int] = []
        self._handles = count()

    @property
    def handle(self) -> int:
        """The number of this thread's handle of cuBLAS: when a thread ends, another gets its handle."""
        if not hasattr(self._thread, "handle"):
            self._thread.handle = _CublasHandle(self._free_handles, self._handles)
        return self._thread.handle.number

    @property
    def answers(self) -> Iterator[bool] | None:
        """The answers for this thread to whether tensors hold anything that is true; None: there are none."""
        return getattr(self._thread, "answers", None)

    @contextmanager
    def answering(self, answers: Iterator[bool]) -> Iterator[None]:
        self._thread.answers = answers
        try:
            yield
        finally:
            self._thread.answers = None

    @property
    def named(self) -> str | None:
        return getattr(self._thread, "named", None)

    @contextmanager
    def naming(self, place: str | None) -> Iterator[None]:
        """Make everything in this block in `place`; None: where its inputs are."""
        before, self._thread.named = self.named, place
        try:
            yield
        finally:
            self._thread.named = before

    def place(self, tensor: Tensor) -> str:
        """Return the place of a tensor: the name of a device, `HOST`, `FILE`, `PINNED` or `SKELETON`."""
        return self.place_of(storage_of(tensor))

    def place_of(self, storage: Storage) -> str:
        """Return the place of a storage."""
        return self.ledger.place(storage) or (SKELETON if storage.device.type == "meta" else HOST)

    def holds_no_values(self, storage: Storage) -> bool:
        """Return True if a storage stands for one that has values."""
        return storage.device.type == "meta" and self.place_of(storage) != SKELETON

    def target(self, device: torch.device | str | int) -> tuple[torch.device, str | None]:
        """Return the device that stands for a named one, and the place that it means; None: no place that is known."""
        named = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
        if named.type == "cuda":
            return META, f"cuda:{named.index or 0}"
        if named.type == "meta":
            return META, SKELETON
        if named.type == "cpu":
            return (META if self.planned else CPU), HOST
        return named, None

    def adopt(self, storage: Storage, place: str | None) -> None:
        """Enter a storage into the ledger, if it is not there yet and takes anything."""
        if place and place != SKELETON and self.ledger.place(storage) is None:
            self.ledger.born(storage, place)

    def reserved_bytes(self, place: str) -> int:
        """Return the bytes that PyTorch's allocator has taken of a device since the ledger was started."""
        blocks = DeviceBlocks(CachingAllocator(self.settings, self.ledger.capacities.get(place)))
        for event in in_place(self.ledger.events, place):
            blocks.apply(event)
        return blocks.allocator.reserved_bytes

    def pinned(self, like: Tensor) -> Tensor:
        """Return a tensor like another, in page-locked memory, with arbitrary values."""
        tensor = torch.empty(0, dtype=like.dtype, device=META if self.planned else CPU)
        size = like.element_size() * _reach(like)
        if size == 0:
            # It has no address that could be page-locked.
            self.adopt(storage_of(tensor), HOST)
            return tensor.as_strided(like.shape, like.stride())
        if self.planned:
            storage = meta_storage(size)
        else:
            storage = storage_of(torch.frombuffer(self.pinned_memory.allocate(size), dtype=torch.uint8))
        self.ledger.born(storage, PINNED)
        return tensor.set_(storage, 0, like.shape, like.stride())

    def read_number(self, tensor: Tensor) -> None:
        """Take what one number passes through on its way to the host: see `_local_scalar_dense_cuda` of PyTorch."""
        if self.place(tensor).startswith("cuda"):
            self.pinned(tensor)

    def upload(self, storage: Storage, place: str) -> Storage:
        """Return a copy of a storage on a device."""
        self.read_storage(storage, 0, storage.nbytes())
        copied = meta_storage(storage.nbytes())
        self.ledger.born(copied, place)
        return copied

    def read(self, tensor: Tensor) -> None:
        """Read every page of a tensor of the host, as a copy of it does."""
        start = int(tensor.storage_offset()) * tensor.element_size()
        self.read_storage(storage_of(tensor), start, start + _reach(tensor) * tensor.element_size())

    def read_storage(self, storage: Storage, start: int, end: int) -> None:
        """Read the pages of some bytes of a storage of the host."""
        self.ledger.touched(storage, start, end)
        if storage.device.type == "cpu":
            read_pages(storage.data_ptr() + start, end - start)

    def from_checkpoint(self, storage: Storage, mapping: MappedPages | None) -> Storage:
        """Enter a storage that `torch.load` has just read, or mapped."""
        if mapping:
            self.ledger.mapped(storage, mapping)
        else:
            self.adopt(storage, HOST)
        return storage

    def refusal(self, what: str) -> NotSimulated:
        """Return the error for a recipe that wants values."""
        if self.planned:
            return self._refused(f"reads values ({what}), and a plan has none; leave out --plan")
        return self._refused(
            f"reads values from the device ({what}), and a simulated one has none; use --device cpu or cuda"
        )

    def lack(self, what: str) -> NotSimulated:
        """Return the error for a recipe that wants something of CUDA that is not simulated."""
        return self._refused(f"uses {what}, which is not simulated; use --device cpu or cuda")

    def _refused(self, why: str) -> NotSimulated:
        line = self.ledger.asking_line()
        return NotSimulated(f"{Path(line.file).name}:{line.number} {why}" if line else f"the load {why}")


class _CublasHandle:
    def __init__(self, free: list[int], more: Iterator[int]) -> None:
        self.number = free.pop() if free else next(more)
        weakref.finalize(self, free.append, self.number)


def storage_of(tensor: Tensor) -> Storage:
    """Return the storage of a tensor, and of a distributed one that of this rank."""
    if type(tensor) in _PLAIN:
        # Nearly all are: they are asked some hundred thousand times in a load.
        return tensor.untyped_storage()
    if is_lazy(tensor):
        # It has no memory yet, and raises when it is asked: until a module's first call gives it some.
        with torch._C.DisableTorchFunctionSubclass():
            return tensor.untyped_storage()
    return (tensor._local_tensor if is_distributed(type(tensor)) else tensor).untyped_storage()  # type: ignore[attr-defined]


@cache
def is_distributed(kind: type) -> bool:
    """Return True if tensors of a type are made of a local one. The name tells: to import the type takes a second."""
    return any(base.__module__ == "torch.distributed.tensor" and base.__name__ == "DTensor" for base in kind.__mro__)


def _reach(tensor: Tensor) -> int:
    """Return the number of elements from a tensor's first to its last, those between included."""
    if not tensor.numel():
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def is_meta(tensor: Tensor) -> bool:
    """Return True if a tensor has no bytes, whatever it stands for."""
    return storage_of(tensor).device.type == "meta"


def meta_storage(size: int) -> Storage:
    # While CUDA is simulated, `Storage` makes others.
    return torch._C.StorageBase.__new__(Storage, size, device=META)  # type: ignore[call-arg]


def tensors(values: Iterable[Any]) -> list[Tensor]:
    """Return every tensor among values, and in the lists and tuples among them."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, _SEQUENCES):
            found += tensors(value)
    return found
