"""What a command line says of budgets: amounts of memory that loads are held to."""

import re
from typing import Any

from bench.meters import kind_of
from bench.meters.budget import Budget
from model.byte_sizes import short_size

BUDGET_OPTIONS = (
    (
        *("--device-memory", None, "BYTES"),
        "device memory to run every load with, such as 8GiB (default: all)",
    ),
    (
        *("--host-memory", None, "BYTES"),
        "host memory to run every load with, such as 4GiB; timed loads have all (default: all)",
    ),
    (
        *("--find-minimum", False, None),
        "find the smallest device and host memory that each strategy loads with, by bisection",
    ),
)

# What an allocator takes at once.
LEAST_BYTES = 2 * 2**20

_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_UNITS = {"": 1, "B": 1} | {
    f"{prefix}{suffix}": base**power
    for power, prefix in enumerate("KMGT", 1)
    for suffix, base in (("iB", 1024), ("B", 1000))
}


def budget(options: Any, device: str) -> Budget:
    """What a load to `device` may take. Raises `ValueError` with one line: what is wrong, what would be right."""
    on_device = _amount("--device-memory", options.device_memory)
    on_host = _amount("--host-memory", options.host_memory)
    if on_device is not None and kind_of(device).is_host:
        raise ValueError(f"--device-memory: with --device {device} weights end in the host's memory; say --host-memory")
    if on_host is not None and options.plan:
        raise ValueError("--host-memory: a plan takes none; leave out --plan, or look at its column private")
    if options.find_minimum and options.plan:
        raise ValueError("--find-minimum: a plan loads nothing; leave out --plan, or look at its column reserved")
    return Budget(on_device, on_host)


def _amount(option: str, text: str | None) -> int | None:
    return None if text is None else amount(option, text)


def amount(option: str, text: str) -> int:
    """Return the bytes of an amount of memory. Raises `ValueError` with one line that names the option."""
    match = _AMOUNT.fullmatch(text.strip())
    units = {name.lower(): count for name, count in _UNITS.items()}
    if match is None or match[2].lower() not in units:
        raise ValueError(f"{option}: {text!r} is no amount of memory; write it as 8GiB or 800MB")
    least = short_size(LEAST_BYTES).replace(" ", "")
    if (count := int(float(match[1]) * units[match[2].lower()])) < LEAST_BYTES:
        raise ValueError(f"{option}: nothing can be loaded with {count:,} bytes; the least is {least}")
    return count
