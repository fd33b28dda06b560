import pytest

from bench.meters.allocations import (
    CACHED,
    ELSEWHERE,
    AllocationEvent,
    LiveAllocation,
    MemoryPeak,
    SourceLine,
    sum_peak,
)
from bench.meters.allocator_settings import AllocatorSettings
from bench.meters.simulated.ledger import in_place
from bench.meters.simulated.peaks import device_peaks, host_peak

MIB = 2**20
HERE = __file__
FIRST = SourceLine(HERE, 1)
SECOND = SourceLine(HERE, 3)
FIRST_SHOWN = ("test_peaks.py:1", "import pytest")
SECOND_SHOWN = ("test_peaks.py:3", "from bench.meters.allocations import (")


def test_without_events_there_is_no_peak() -> None:
    assert sum_peak([]) == MemoryPeak()
    assert device_peaks([], AllocatorSettings()) == dict.fromkeys(("requested", "allocated", "reserved"), MemoryPeak())


def test_what_is_alive_at_the_peak_is_grouped_by_line_and_adds_up() -> None:
    events = [
        AllocationEvent("cuda:0", 1, 100, FIRST),
        AllocationEvent("cuda:0", 2, 900, SECOND),
        AllocationEvent("cuda:0", 2, -900, None),
        AllocationEvent("cuda:0", 3, 40, FIRST),
        AllocationEvent("cuda:0", 4, 950, SECOND),
        AllocationEvent("cuda:0", 5, 7, None),
        AllocationEvent("cuda:0", 1, -100, None),
        AllocationEvent("cuda:0", 6, 50, SECOND),
    ]
    peak = sum_peak(events)
    assert peak == MemoryPeak(
        1097,
        (
            LiveAllocation(950, 1, *SECOND_SHOWN),
            LiveAllocation(140, 2, *FIRST_SHOWN),
            LiveAllocation(7, 1, ELSEWHERE, ""),
        ),
    )
    assert peak.bytes == sum(held.bytes for held in peak.alive)


def test_a_storage_that_comes_in_parts_is_one() -> None:
    events = [
        AllocationEvent("file", 1, 60, FIRST),
        AllocationEvent("file", 2, 5, FIRST),
        AllocationEvent("file", 1, 40, FIRST),
    ]
    assert sum_peak(events).alive == (LiveAllocation(105, 2, *FIRST_SHOWN),)
    assert (
        sum_peak([*events, AllocationEvent("file", 1, -60, None), AllocationEvent("file", 1, -40, None)]).bytes == 105
    )


def test_of_equal_peaks_the_first_is_explained() -> None:
    events = [AllocationEvent("h", 1, 5, FIRST), AllocationEvent("h", 1, -5, None), AllocationEvent("h", 2, 5, SECOND)]
    assert sum_peak(events).alive == (LiveAllocation(5, 1, *FIRST_SHOWN),)


def test_places_have_their_peak_together() -> None:
    events = [
        AllocationEvent("a", 1, 5, None),
        AllocationEvent("b", 2, 3, None),
        AllocationEvent("a", 1, -5, None),
        AllocationEvent("c", 3, 100, None),
    ]
    assert host_peak(in_place(events, "a", "b")).bytes == 8
    assert host_peak(in_place(events, "b")).bytes == 3
    assert host_peak([]).bytes == 0


def test_blocks_and_segments_are_explained_in_their_own_sizes() -> None:
    events = [AllocationEvent("cuda:0", 1, 12 * MIB + 1, FIRST), AllocationEvent("cuda:0", 2, 100, SECOND)]
    peaks = device_peaks(events, AllocatorSettings())
    assert peaks["requested"].bytes == 12 * MIB + 101
    assert peaks["allocated"] == MemoryPeak(
        12 * MIB + 512 + 512, (LiveAllocation(12 * MIB + 512, 1, *FIRST_SHOWN), LiveAllocation(512, 1, *SECOND_SHOWN))
    )
    assert peaks["reserved"].bytes == 16 * MIB
    assert peaks["reserved"].alive[1] == LiveAllocation(16 * MIB - 12 * MIB - 1024, 0, CACHED, "")


def test_figures_peak_at_different_times() -> None:
    """A cache that was emptied no longer counts, one that was not does."""
    events = [
        *(AllocationEvent("cuda:0", 1, 30 * MIB, FIRST), AllocationEvent("cuda:0", 1, -30 * MIB, None)),
        AllocationEvent("cuda:0", 2, 40 * MIB, SECOND),
    ]
    kept = device_peaks(events, AllocatorSettings())
    assert (kept["requested"].bytes, kept["reserved"].bytes) == (40 * MIB, 70 * MIB)
    emptied = [*events[:2], AllocationEvent("cuda:0", -1, 0, None), *events[2:]]
    assert device_peaks(emptied, AllocatorSettings())["reserved"].bytes == 40 * MIB


@pytest.mark.parametrize("expandable", [False, True])
def test_settings_reach_the_allocator(expandable: bool) -> None:
    events = [AllocationEvent("cuda:0", 1, 30 * MIB, FIRST)]
    reserved = device_peaks(events, AllocatorSettings(expandable_segments=expandable))["reserved"].bytes
    assert reserved == (40 if expandable else 30) * MIB
