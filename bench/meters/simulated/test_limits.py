"""Limits of the caching allocator. All figures are those of torch 2.14.1's allocator, run on the stand-in."""

import pytest

from bench.meters.allocator_settings import MIB, AllocatorSettings
from bench.meters.simulated.allocator import CachingAllocator, OutOfSegments
from bench.meters.simulated.blocks import Block

DEFAULT = AllocatorSettings()
EXPANDABLE = AllocatorSettings(expandable_segments=True)

# In MiB: the fraction of the device, what is there, what is asked for, and what is reserved then.
SERVED = [
    (DEFAULT, 30, [], 25, 26),
    (DEFAULT, 24, [20], 0.4, 22),
    (EXPANDABLE, 30, [], 25, 40),
    (EXPANDABLE, 28, [], 27, 40),
    (EXPANDABLE, 30, [], 9, 20),
    (EXPANDABLE, 24, [20], 0.4, 22),
]

# The same where it is refused, and the segment that it was refused for.
REFUSED = [
    (DEFAULT, 40, [30], 10.5, 30, 12),
    (EXPANDABLE, 40, [30], 10.5, 40, 12),
    (EXPANDABLE, 30, [20], 9, 20, 20),
    (EXPANDABLE, 24, [20, *[0.9] * 4], 0.9, 24, 2),
    (EXPANDABLE, 28, [], 28.4, 0, 30),
]


def asked(allocator: CachingAllocator, *mib: float) -> list[Block]:
    return [allocator.allocate(int(one * MIB)) for one in mib]


@pytest.mark.parametrize(("settings", "fraction", "there", "more", "reserved"), SERVED)
def test_a_fraction_is_held_against_a_segment_whatever_is_mapped(
    settings: AllocatorSettings, fraction: int, there: list[float], more: float, reserved: int
) -> None:
    allocator = CachingAllocator(settings, fraction * MIB)
    asked(allocator, *there, more)
    assert allocator.reserved_bytes == reserved * MIB


@pytest.mark.parametrize(("settings", "fraction", "there", "more", "reserved", "segment"), REFUSED)
def test_beyond_a_fraction_nothing_is_mapped(
    settings: AllocatorSettings, fraction: int, there: list[float], more: float, reserved: int, segment: int
) -> None:
    allocator = CachingAllocator(settings, fraction * MIB)
    asked(allocator, *there)
    with pytest.raises(OutOfSegments) as caught:
        asked(allocator, more)
    assert (allocator.reserved_bytes, caught.value.segment_bytes) == (reserved * MIB, segment * MIB)


def played(allocator: CachingAllocator, steps: str) -> None:
    """Play steps apart by commas: `name mib stream` is a request, `-name` frees it, `empty` empties the cache."""
    blocks: dict[str, Block] = {}
    for name, *of in map(str.split, steps.split(",")):
        if of:
            blocks[name] = allocator.allocate(int(float(of[0]) * MIB), int(of[1]))
        elif name == "empty":
            allocator.empty_cache()
        else:
            allocator.free(blocks.pop(name.removeprefix("-")))


def test_of_the_driver_only_what_is_mapped_is_asked() -> None:
    """20 MiB more, beside the 60 that are cached there: nothing cached has to go back for it."""
    allocator = CachingAllocator(EXPANDABLE, device_bytes=120 * MIB)
    played(allocator, "b 20 0, a 60 0, c 20 1, -a, -c, e 70 0")
    assert allocator.reserved_bytes == 120 * MIB


def test_what_the_driver_mapped_before_it_failed_stays_until_the_cache_is_emptied() -> None:
    """60 MiB more are mapped, the next 60 are not there: the peak is between the state before and the one after."""
    allocator = CachingAllocator(EXPANDABLE, device_bytes=500 * MIB)
    with pytest.raises(OutOfSegments):
        played(allocator, "a 60 0, b 20 0, -a, empty, x 400 1, -b, e 130 0")
    assert (allocator.reserved_bytes, allocator.reserved_peak_bytes) == (400 * MIB, 480 * MIB)


def test_an_expandable_segment_has_addresses_for_a_device_and_an_eighth_of_it() -> None:
    """A block that can grow to no more than that serves, and not a larger one, which is oversize here."""
    settings = AllocatorSettings(expandable_segments=True, max_split_bytes=40 * MIB)
    allocator = CachingAllocator(settings, device_bytes=1024 * MIB)
    played(allocator, "a 32 0, b 300 0, c 300 0, d 235.5 0, e 32 0, -c, f 11.5 0, g 9.5 0, h 128 0, -d, i 9.5 0")
    assert allocator.reserved_bytes == 780 * MIB


def test_the_addresses_of_a_segment_go_back_with_its_last_granule() -> None:
    allocator = CachingAllocator(EXPANDABLE, device_bytes=1024 * MIB)
    n = 300.0005
    steps = f"a {n} 0, b {n} 0, -a, empty, -b, c {n} 0, d {n} 0, e {n} 0, -c, -d, empty, f {n} 0"
    played(allocator, steps)
    assert allocator.reserved_bytes == 620 * MIB
