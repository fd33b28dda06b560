"""The table of device kinds. A new kind is one file, with its meter and its row, and one name in `KINDS`."""

from bench.meters.allocator_settings import AllocatorSettings
from bench.meters.cpu import CPU
from bench.meters.cuda import CUDA
from bench.meters.device import DeviceKind, DeviceMeter, MeterOptions
from bench.meters.sim import SIM

KINDS = {kind.name: kind for kind in (CPU, CUDA, SIM)}


def kind_of(device: str) -> DeviceKind:
    """Return the row of a device, such as `cpu` or `cuda:1`. Raises `KeyError` for a name without a row."""
    return KINDS[device.partition(":")[0]]


def recorded_kind(device: str | None) -> DeviceKind:
    """Return the row of a device that a record names, `cpu` for None.

    A name without a row, of another version of the suite, is taken for a device that has memory and values of its own.
    """
    name = (device or CPU.name).partition(":")[0]
    return KINDS.get(name) or DeviceKind(name, CPU.meter)


def device_named(text: str) -> str:
    """Return the name of a device as records have it, `cuda:1` for `cuda:01`, whether this machine has it or not.

    Raises `ValueError`, in one line, for a name without a row.
    """
    name, colon, index = text.partition(":")
    kind = KINDS.get(name)
    if kind is None or (colon and not (kind.is_numbered and index.isdecimal())):
        known = ", ".join(spelling for one in KINDS.values() for spelling in one.spellings)
        raise ValueError(f"{text!r} is unknown; choose from auto, {known}")
    return f"{name}:{int(index)}" if colon else name


def device_meter(
    device: str,
    source: str | None = None,
    settings: AllocatorSettings | None = None,
    *,
    planned: bool = False,
    explained: bool = False,
) -> DeviceMeter:
    """Return the meter of a device; see `MeterOptions` for the others."""
    kind = kind_of(device)
    return kind.meter(kind.torch_device(device), MeterOptions(source, settings, planned, explained))
