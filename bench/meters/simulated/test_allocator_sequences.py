"""Drawn sequences of allocations and frees on the model of the caching allocator."""

from collections.abc import Iterator
from itertools import chain, pairwise

import hypothesis
import pytest
from hypothesis import strategies as st

from bench.meters.allocator_settings import MIB, AllocatorSettings, allocator_settings
from bench.meters.simulated.allocator import CachingAllocator, OutOfSegments
from bench.meters.simulated.blocks import Block
from bench.meters.simulated.conftest import figures

# A step is a request for so many bytes; below zero it frees one of the blocks in use; zero empties the cache.
DEFAULT = AllocatorSettings()
EDGES = [1, 513, MIB, MIB + 1, 9 * MIB, 10 * MIB - 512, 10 * MIB, 20 * MIB + 512, 38 * MIB, 60 * MIB]

REQUESTS = st.integers(1, 2 * MIB) | st.integers(MIB, 50 * MIB) | st.sampled_from(EDGES)

STEP = REQUESTS | st.integers(-60, -1) | st.integers(-4, 0)

# Lists of lists are longer than lists of as many numbers, and still fail by short examples.
STEPS = st.lists(st.lists(STEP, min_size=4, max_size=9), min_size=1).map(lambda parts: [*chain.from_iterable(parts)])

SETTINGS = [
    "",
    "max_split_size_mb:20",
    "roundup_power2_divisions:4",
    "large_segment_size_mb:12,max_split_size_mb:30,max_non_split_rounding_mb:12",
    "expandable_segments:True",
    "expandable_segments:True,large_segment_size_mb:12,max_split_size_mb:20,roundup_power2_divisions:[1:2,4:1,>:8]",
]


@pytest.mark.parametrize("text", ["", "expandable_segments:True"])
@hypothesis.settings(max_examples=20, deadline=None, report_multiple_bugs=False)
@hypothesis.given(steps=STEPS, streams=st.lists(st.integers(0, 2), min_size=1))
def test_streams_take_as_much_as_allocators_of_their_own(text: str, steps: list[int], streams: list[int]) -> None:
    settings = allocator_settings(text)
    together, apart = CachingAllocator(settings), [CachingAllocator(settings) for _ in range(3)]
    live: list[tuple[Block, int, Block]] = []
    for place, step in enumerate(steps):
        stream = streams[place % len(streams)]
        if step > 0:
            live.append((together.allocate(step, stream), stream, apart[stream].allocate(step)))
        elif step == 0:
            for allocator in (together, *apart):
                allocator.empty_cache()
        elif live:
            block, stream, its = live.pop(step % len(live))
            together.free(block)
            apart[stream].free(its)
        assert figures(together) == tuple(map(sum, zip(*map(figures, apart), strict=True)))


def play(allocator: CachingAllocator, steps: list[int]) -> Iterator[list[tuple[Block, int]]]:
    """Return the blocks in use after each step, with their requested bytes."""
    live: list[tuple[Block, int]] = []
    for step in steps:
        if step > 0:
            live.append((allocator.allocate(step), step))
        elif step == 0:
            allocator.empty_cache()
        elif live:
            allocator.free(live.pop(step % len(live))[0])
        yield live


def segment_of(block: Block) -> list[Block]:
    """Return the blocks of the segment that a block is a part of, by address, and check their links."""
    while block.before is not None:
        assert block.before.after is block
        block = block.before
    segment = [block]
    while (following := segment[-1].after) is not None:
        assert following.before is segment[-1]
        assert following.address == segment[-1].address + segment[-1].size
        segment.append(following)
    return segment


def check(allocator: CachingAllocator, live: list[tuple[Block, int]]) -> None:
    segments = {id(segment[0]): segment for segment in (segment_of(block) for block, _ in live)}
    blocks = sorted((block for segment in segments.values() for block in segment), key=lambda block: block.address)
    # No byte is handed out twice: blocks do not overlap, and those in use are those of live requests.
    assert all(one.address + one.size <= other.address for one, other in pairwise(blocks))
    assert sorted(id(block) for block in blocks if block.in_use) == sorted(id(block) for block, _ in live)
    assert all(block.mapped and block.size >= requested for block, requested in live)
    assert all(block.size >= 512 and block.size % 512 == 0 for block in blocks)
    for segment in segments.values():
        # Free neighbours are one block.
        assert all(one.in_use or other.in_use or one.mapped != other.mapped for one, other in pairwise(segment))
        granule = 2 * MIB if segment[0].pool.small else allocator.settings.large_segment_bytes
        assert all((block.address - segment[0].address) % granule == 0 for block in segment if not block.mapped)
    requested, taken, reserved = figures(allocator)
    assert requested == sum(asked for _, asked in live)
    assert taken == sum(block.size for block, _ in live)
    # Segments without a live request are cached as a whole.
    assert taken <= sum(block.size for block in blocks if block.mapped) <= reserved


@pytest.mark.parametrize("text", SETTINGS)
@hypothesis.settings(max_examples=40, deadline=None, report_multiple_bugs=False)
@hypothesis.given(steps=STEPS)
def test_whatever_is_done_no_byte_is_lost_or_handed_out_twice(text: str, steps: list[int]) -> None:
    allocator = CachingAllocator(allocator_settings(text))
    for live in play(allocator, steps):
        check(allocator, live)
    allocator.empty_cache()
    # No byte is lost: the segments of live requests are all that stays.
    segments = {id(segment[0]): segment for segment in (segment_of(block) for block, _ in live)}
    mapped = sum(block.size for segment in segments.values() for block in segment if block.mapped)
    assert allocator.reserved_bytes == mapped
    for block, _ in live:
        allocator.free(block)
    allocator.empty_cache()
    assert figures(allocator) == (0, 0, 0)


@pytest.mark.parametrize("text", SETTINGS)
@hypothesis.settings(max_examples=10, deadline=None, report_multiple_bugs=False)
@hypothesis.given(steps=STEPS, more=STEPS)
def test_what_is_done_later_changes_no_figure_before_it(text: str, steps: list[int], more: list[int]) -> None:
    """A load that does more has no lower peak."""
    shorter, longer = (CachingAllocator(allocator_settings(text)) for _ in range(2))
    begun = [figures(shorter) for _ in play(shorter, steps)]
    assert [figures(longer) for _ in play(longer, steps + more)][: len(begun)] == begun


def naive_part(segments: list[list[list[int]]], requested: int) -> list[int]:
    size = -(-requested // 512) * 512
    small = size <= MIB
    # Only the small pool has segments of 2 MiB.
    pool = [parts for parts in segments if (sum(part[0] for part in parts) == 2 * MIB) == small]
    fits = [(parts, at) for parts in pool for at, (free, used) in enumerate(parts) if free >= size and not used]
    if not fits:
        fresh = 2 * MIB if small else 20 * MIB if size < 10 * MIB else -(-size // (2 * MIB)) * 2 * MIB
        segments.append([[fresh, 0]])
        return naive_part(segments, requested)
    parts, at = min(fits, key=lambda fit: fit[0][fit[1]][0])
    rest = parts[at][0] - size
    if rest >= 512 if small else rest > MIB:
        parts[at : at + 1] = [[size, 0], [rest, 0]]
    parts[at][1] = requested
    return parts[at]


def naive_figures(steps: list[int]) -> Iterator[tuple[int, int, int]]:
    """A second model of the default rules: a segment is a list of parts, a part is its size and its requested bytes."""
    segments: list[list[list[int]]] = []
    live: list[list[int]] = []
    for step in steps:
        if step > 0:
            live.append(naive_part(segments, step))
        elif step == 0:
            segments = [parts for parts in segments if any(used for _, used in parts)]
        elif live:
            live.pop(step % len(live))[1] = 0
        for parts in segments:
            for at in range(len(parts) - 1, 0, -1):
                if parts[at - 1][1] == parts[at][1] == 0:
                    parts[at - 1][0] += parts.pop(at)[0]
        every = [part for parts in segments for part in parts]
        yield sum(used for _, used in every), sum(size for size, used in every if used), sum(size for size, _ in every)


@hypothesis.settings(max_examples=50, deadline=None, report_multiple_bugs=False)
@hypothesis.given(steps=STEPS)
def test_the_default_rules_are_those_of_a_naive_allocator(steps: list[int]) -> None:
    allocator = CachingAllocator(DEFAULT)
    assert [figures(allocator) for _ in play(allocator, steps)] == list(naive_figures(steps))


@pytest.mark.parametrize("settings", SETTINGS)
@hypothesis.given(steps=STEPS)
def test_a_capacity_that_is_not_reached_changes_nothing(settings: str, steps: list[int]) -> None:
    free, bound = (CachingAllocator(allocator_settings(settings), capacity) for capacity in (None, 2**60))
    held: list[tuple[Block, Block]] = []
    for step in steps:
        if step > 0:
            held.append((free.allocate(step), bound.allocate(step)))
        elif step == 0:
            free.empty_cache()
            bound.empty_cache()
        elif held:
            one, other = held.pop(step % len(held))
            free.free(one)
            bound.free(other)
        assert figures(free) == figures(bound)


@pytest.mark.parametrize("limit", ["capacity", "device_bytes"])
@pytest.mark.parametrize("settings", SETTINGS)
@hypothesis.settings(max_examples=50)
@hypothesis.given(steps=STEPS, mib=st.integers(4, 120))
def test_no_more_is_reserved_than_a_limit_allows(limit: str, settings: str, steps: list[int], mib: int) -> None:
    allocator = CachingAllocator(allocator_settings(settings), **{limit: mib * MIB})
    most = mib * MIB
    if limit == "capacity" and allocator.settings.expandable_segments:
        # PyTorch holds less against it than it maps: less by a part of what is mapped at once.
        most += allocator.settings.large_segment_bytes - 2 * MIB
    held: list[Block] = []
    for step in steps:
        before = figures(allocator)[:2]
        try:
            if step > 0:
                held.append(allocator.allocate(step))
            elif step == 0:
                allocator.empty_cache()
            elif held:
                allocator.free(held.pop(step % len(held)))
        except OutOfSegments:
            # What could not be had counts for nothing.
            assert figures(allocator)[:2] == before
        assert allocator.allocated_bytes <= allocator.reserved_bytes <= allocator.reserved_peak_bytes <= most
