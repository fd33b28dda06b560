"""The replacements of calls on storages and checkpoints, which no interceptor gets."""

import threading
from collections.abc import Callable
from typing import Any

import torch

from bench.meters.simulated.ledger import ON_HOST, PINNED, Storage, in_place, without_asking
from bench.meters.simulated.pinned import host_stats
from bench.meters.simulated.planned_files import PlannedFile, new_mapping, reader_replacements
from bench.meters.simulated.simulated_device import CPU, META, SimulatedDevice, meta_storage

# The memory of a device without a limit: room for any load.
UNLIMITED_BYTES = 2**60

# A replacement while CUDA is simulated: owner, name, and the substitute.
Replacement = tuple[object, str, Any]


def replacements(world: SimulatedDevice) -> list[Replacement]:
    """Return all replacements; they call the originals where those can do the work."""
    return [
        *_creation(world),
        *_copies(world),
        *_pinned(world),
        *_checkpoints(world),
        *_device(world),
    ]


def _creation(world: SimulatedDevice) -> list[Replacement]:
    data_ptr, resize = Storage.data_ptr, Storage.resize_

    def new(kind: type[Storage], *args: Any, device: Any = None, **options: Any) -> Storage:
        stand_in, place = world.target(device if device is not None else CPU)
        storage: Storage = torch._C.StorageBase.__new__(kind, *args, device=stand_in, **options)  # type: ignore[call-arg]
        world.adopt(storage, place)
        return storage

    def resize_and_notice(storage: Storage, size: int) -> Storage:
        resized = resize(storage, size)
        world.ledger.resized(storage)
        return resized

    def data_ptr_or_address(storage: Storage) -> int:
        address = world.ledger.address(storage) if storage.device.type == "meta" else None
        return data_ptr(storage) if address is None else address

    return [
        (Storage, "__new__", new),
        (Storage, "resize_", resize_and_notice),
        (Storage, "data_ptr", data_ptr_or_address),
    ]


def _copies(world: SimulatedDevice) -> list[Replacement]:
    to, cpu, copy, clone = Storage.to, Storage.cpu, Storage.copy_, Storage.clone

    def to_device(storage: Storage, *, device: Any, **_options: Any) -> Storage:
        stand_in, place = world.target(device)
        source = world.place_of(storage)
        if place in (source, without_asking(source)):
            return storage
        return world.upload(storage, str(place)) if stand_in == META else to(storage, device=device)

    def to_host(storage: Storage) -> Storage:
        if world.place_of(storage).startswith("cuda"):
            raise world.refusal("a copy to the host")
        return storage if world.holds_no_values(storage) else cpu(storage)

    def copy_from(storage: Storage, source: Storage, *options: Any) -> Storage:
        if world.holds_no_values(storage):
            world.read_storage(source, 0, source.nbytes())
            return storage
        if world.holds_no_values(source):
            raise world.refusal("a copy to the host")
        return copy(storage, source, *options)

    def clone_in_place(storage: Storage) -> Storage:
        if not world.holds_no_values(storage):
            return clone(storage)
        return world.upload(storage, without_asking(world.place_of(storage)))

    return [
        (Storage, "clone", clone_in_place),
        (Storage, "to", to_device),
        (Storage, "cpu", to_host),
        (Storage, "copy_", copy_from),
        (Storage, "__getitem__", _part_or_value(world)),
        (Storage, "_write_file", _with_values(world, Storage._write_file)),
        (torch.TypedStorage, "__getitem__", _with_values(world, torch.TypedStorage.__getitem__)),
        (torch.TypedStorage, "tolist", _with_values(world, torch.TypedStorage.tolist)),
    ]


def _part_or_value(world: SimulatedDevice) -> Callable[..., Any]:
    get_item = Storage.__getitem__
    get_value = _with_values(world, get_item)

    def get_part_or_value(storage: Storage, index: Any) -> Any:
        # A part of a real storage needs no help.
        if not isinstance(index, slice) or not world.holds_no_values(storage):
            return get_value(storage, index)
        start, stop, step = index.indices(storage.nbytes())
        if step != 1:
            return get_item(storage, index)  # Which says that it cannot.
        part = meta_storage(max(0, stop - start))
        world.ledger.part(part, storage, start)
        return part

    return get_part_or_value


def _with_values(world: SimulatedDevice, read: Callable[..., Any]) -> Callable[..., Any]:
    def read_values(storage: Any, *args: Any) -> Any:
        if world.holds_no_values(getattr(storage, "_untyped_storage", storage)):
            raise world.refusal(f"{read.__name__} of a storage")
        return read(storage, *args)

    return read_values


def _pinned(world: SimulatedDevice) -> list[Replacement]:
    events, since = world.ledger.events, 0

    def is_pinned(storage: Storage, *_: Any) -> bool:
        return world.place_of(storage) == PINNED

    def pin_memory(storage: Storage, *_: Any) -> Storage:
        if world.place_of(storage) not in ON_HOST:
            raise TypeError("cannot pin a storage of a device: only CPU memory can be pinned")
        whole = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
        return whole.pin_memory().untyped_storage()

    def empty_cache() -> None:
        world.pinned_memory.empty_cache()
        world.ledger.cache_emptied(PINNED)

    def stats() -> dict[str, dict[str, int]]:
        return host_stats(in_place(events, PINNED), since)

    def reset_peaks() -> None:
        nonlocal since
        since = len(in_place(events, PINNED))

    # Torch 2.10 has no public name for it.
    newer = [(torch._C, "_accelerator_emptyHostCache", empty_cache)] * hasattr(torch.accelerator, "empty_host_cache")
    return [
        (Storage, "is_pinned", is_pinned),
        (Storage, "pin_memory", pin_memory),
        (torch._C, "_host_emptyCache", empty_cache),
        *newer,
        *((owner, "host_memory_stats_as_nested_dict", stats) for owner in (torch.cuda, torch.cuda.memory)),
        *((owner, "reset_peak_host_memory_stats", reset_peaks) for owner in (torch.cuda, torch.cuda.memory)),
    ]


def _checkpoints(world: SimulatedDevice) -> list[Replacement]:
    serialization, from_file = torch.serialization, Storage.from_file
    location_reader, restore = serialization._get_restore_location, serialization.default_restore_location
    # The mapping of the file that a thread is loading, until its storages are entered.
    loading = threading.local()

    def map_file(*args: Any, **options: Any) -> Any:
        loading.mapping = new_mapping(world)
        return PlannedFile(world) if world.planned else from_file(*args, **options)

    def read_to_location(map_location: Any) -> Callable[[Storage, str], Storage]:
        mapping, loading.mapping = getattr(loading, "mapping", None), None
        to_location = location_reader(map_location)
        # The mapping lasts as long as the load does, or a storage of the file is held.
        return lambda storage, location: to_location(world.from_checkpoint(storage, mapping), location)

    def restore_or_upload(storage: Storage, location: str) -> Storage:
        if not location.startswith("cuda"):
            return restore(storage, location)
        return world.upload(storage, str(world.target(location)[1]))

    return [
        *(_plan(world) if world.planned else []),
        (Storage, "from_file", map_file),
        (serialization, "_get_restore_location", read_to_location),
        (serialization, "default_restore_location", restore_or_upload),
    ]


def _plan(world: SimulatedDevice) -> list[Replacement]:
    def leave_unread(_reader: Any, _name: str, size: int, _kind: Any) -> Any:
        return torch.empty(size, dtype=torch.uint8)

    def save(*_args: Any, **_options: Any) -> None:
        raise world.refusal("torch.save")

    return [
        (torch._C.PyTorchFileReader, "get_storage_from_record", leave_unread),
        (torch, "save", save),
        (torch.serialization, "save", save),
        *reader_replacements(),
    ]


def _device(world: SimulatedDevice) -> list[Replacement]:
    """Return the replacements for calls on the device itself: there is one, and it is never busy."""

    def empty_cache() -> None:
        world.ledger.cache_emptied("cuda:0")

    def nothing(*_args: Any, **_options: Any) -> None:
        pass

    def lack(*_args: Any, **_options: Any) -> None:
        raise world.lack("more of torch.cuda than its tensors")

    def place(device: Any) -> str:
        return str(world.target("cuda" if device is None else device)[1])

    def memory_allocated(device: Any = None) -> int:
        return world.ledger.held_bytes(place(device))

    def memory_reserved(device: Any = None) -> int:
        return world.reserved_bytes(place(device))

    def mem_get_info(device: Any = None) -> tuple[int, int]:
        total = world.ledger.capacities.get(place(device), UNLIMITED_BYTES)
        return total - world.reserved_bytes(place(device)), total

    return [
        *((torch.cuda, name, lambda: True) for name in ("is_available", "is_initialized")),
        (torch.cuda, "device_count", lambda: 1),
        (torch.cuda, "current_device", lambda: 0),
        (torch.cuda, "memory_allocated", memory_allocated),
        *((owner, "memory_reserved", memory_reserved) for owner in (torch.cuda, torch.cuda.memory)),
        *((owner, "mem_get_info", mem_get_info) for owner in (torch.cuda, torch.cuda.memory)),
        *((owner, name, nothing) for owner in (torch.cuda, torch.accelerator) for name in ("synchronize",)),
        *((torch.cuda, name, nothing) for name in ("init", "set_device", "ipc_collect", "reset_peak_memory_stats")),
        *((owner, "empty_cache", empty_cache) for owner in (torch.cuda, torch.cuda.memory, torch.accelerator)),
        # All the rest asks for the real one first.
        (torch.cuda, "_lazy_init", lack),
        # It has no cuDNN. A CUDA build of PyTorch would ask the device for its capability.
        (torch.backends.cudnn, "is_acceptable", lambda _tensor: False),
    ]
