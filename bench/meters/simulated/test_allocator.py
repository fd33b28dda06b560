from collections.abc import Iterator
from itertools import accumulate, chain, pairwise, permutations

import hypothesis
import pytest
from hypothesis import strategies as st

from bench.meters.allocator_settings import KIB, MIB, AllocatorSettings, allocator_settings
from bench.meters.simulated.allocator import CachingAllocator, OutOfSegments
from bench.meters.simulated.blocks import Block

DEFAULT = AllocatorSettings()
EXPANDABLE = AllocatorSettings(expandable_segments=True)

# Wasted at most, held (in MiB) and requested, where blocks of 40 MiB are oversize: is what is held taken?
TAKEN = [(20, 60, 60 * MIB), (20, 60, 40 * MIB + 512), (26, 66, 40 * MIB + 512), (20, 40, 40 * MIB)]
REFUSED = [(20, 60, 40 * MIB), (26, 66, 40 * MIB), (20, 40, 40 * MIB - 512)]

# A step is a request for so many bytes; below zero it frees one of the blocks in use; zero empties the cache.
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


def allocated(*requests: int, settings: AllocatorSettings = DEFAULT) -> tuple[CachingAllocator, list[Block]]:
    allocator = CachingAllocator(settings)
    return allocator, [allocator.allocate(request) for request in requests]


def cached(size: int, settings: AllocatorSettings = DEFAULT) -> CachingAllocator:
    """An allocator that holds one block, and it is free."""
    allocator, [block] = allocated(size, settings=settings)
    allocator.free(block)
    return allocator


def figures(allocator: CachingAllocator) -> tuple[int, int, int]:
    return allocator.requested_bytes, allocator.allocated_bytes, allocator.reserved_bytes


@pytest.mark.parametrize(("requested", "size"), [(1, 512), (512, 512), (513, 1024), (MIB + 1, MIB + 512)])
def test_a_request_is_rounded_up_to_512_bytes(requested: int, size: int) -> None:
    allocator, [block] = allocated(requested)
    assert (block.size, *figures(allocator)[:2]) == (size, requested, size)


@pytest.mark.parametrize(
    ("requested", "mib"),
    [(1, 2), (MIB, 2), (MIB + 1, 20), (10 * MIB - 512, 20), (10 * MIB - 511, 10), (10 * MIB, 10), (10 * MIB + 1, 12)],
)
def test_a_request_takes_a_segment_by_its_size(requested: int, mib: int) -> None:
    assert allocated(requested)[0].reserved_bytes == mib * MIB
    larger = allocator_settings("large_segment_size_mb:30")
    assert allocated(requested, settings=larger)[0].reserved_bytes == (30 if mib == 20 else mib) * MIB


@pytest.mark.parametrize(
    ("held", "requested", "rest"),
    # More than 1 MiB of a large block, or 512 bytes of a small one.
    [(10 * MIB, 9 * MIB, 0), (10 * MIB, 9 * MIB - 512, MIB + 512), (2048, 1537, 0), (2048, 1536, 512), (2048, 1, 1536)],
)
def test_a_block_is_split_where_enough_would_remain(held: int, requested: int, rest: int) -> None:
    allocator, [hole, _] = allocated(held, MIB)
    allocator.free(hole)
    block = allocator.allocate(requested)
    assert (block.address, block.size) == (0, held - rest)


def test_small_and_large_requests_never_share_a_segment() -> None:
    for first, second in permutations((MIB, MIB + 1)):
        allocator = cached(first)
        allocator.allocate(second)
        assert allocator.reserved_bytes == 22 * MIB


def test_the_smallest_cached_block_that_fits_is_taken_whichever_was_freed_last() -> None:
    for order in permutations(range(4)):
        allocator, blocks = allocated(30 * MIB, 12 * MIB, 16 * MIB, 12 * MIB)
        for index in order:
            allocator.free(blocks[index])
        # They lie one behind the other.
        assert [allocator.allocate(12 * MIB).address // MIB for _ in blocks] == [30, 58, 42, 0]


@pytest.mark.parametrize("settings", [DEFAULT, EXPANDABLE])
@pytest.mark.parametrize("order", [*permutations((0, 1)), *permutations((0, 1, 2))])
def test_free_neighbours_merge_and_serve_a_larger_request(settings: AllocatorSettings, order: tuple[int, ...]) -> None:
    allocator, blocks = allocated(*[256 * KIB] * 4, MIB, settings=settings)
    for index in order:
        allocator.free(blocks[index])
    merged = allocator.allocate(len(order) * 256 * KIB)
    assert (merged.address, merged.size, allocator.reserved_bytes) == (0, len(order) * 256 * KIB, 2 * MIB)


def test_only_an_emptied_cache_gives_back_and_only_segments_that_have_no_block_in_use() -> None:
    allocator, [_, part, whole] = allocated(MIB, 5 * MIB, 30 * MIB)
    allocator.free(whole)
    assert figures(allocator) == (6 * MIB, 6 * MIB, 52 * MIB)
    allocator.empty_cache()
    assert figures(allocator) == (6 * MIB, 6 * MIB, 22 * MIB)
    allocator.free(part)
    allocator.empty_cache()
    assert figures(allocator) == (MIB, MIB, 2 * MIB)


@pytest.mark.parametrize(("wasted", "held", "requested"), TAKEN + REFUSED)
def test_an_oversize_block_is_for_requests_of_its_size(wasted: int, held: int, requested: int) -> None:
    settings = AllocatorSettings(max_split_bytes=40 * MIB, max_non_split_rounding_bytes=wasted * MIB)
    block = cached(held * MIB, settings).allocate(requested)
    assert block.address == (0 if (wasted, held, requested) in TAKEN else held * MIB)
    assert block.address or block.size == held * MIB
    # A request below the limit does split a segment above it.
    assert allocated(38 * MIB + 512, settings=settings)[1][0].size == 38 * MIB + 512


@pytest.mark.parametrize(
    ("divisions", "unit", "sizes"),
    [
        # PyTorch's own example: 1024, 1280, 1536 and 1792 are the parts.
        ("4", MIB, {1200: 1280, 1024: 1024, 1025: 1280, 1793: 2048}),
        ("4", KIB, {5121: 6144, 641: 768}),
        ("4", 1, {1: 512, 1200: 1536, 1537: 2048}),  # Up to 512 bytes for each part it is as without divisions.
        ("2", MIB, {1200: 1536}),
        ("1", 1, {513: 1024, 5 * MIB + 1: 5 * MIB + 512}),
        ("[256:1,512:2,1024:4,>:8]", MIB, {100: 100, 300: 300, 600: 768, 1200: 1280, 2100: 2304, 65 * KIB: 72 * KIB}),
    ],
)
def test_a_request_is_rounded_up_to_a_part_of_a_power_of_two(divisions: str, unit: int, sizes: dict[int, int]) -> None:
    settings = allocator_settings(f"roundup_power2_divisions:{divisions}")
    taken = [allocated(requested * unit, settings=settings)[0].allocated_bytes for requested in sizes]
    assert taken == [size * unit for size in sizes.values()]


@pytest.mark.parametrize(
    ("granule", "requests", "reserved"),
    [
        (20, [MIB - 512, MIB, MIB, MIB, 512], [2, 2, 4, 4, 4]),
        (20, [20 * MIB - 512, 2 * MIB, 18 * MIB + 512, 41 * MIB], [20, 40, 40, 100]),
        (12, [13 * MIB, 11 * MIB, 2 * MIB], [24, 24, 36]),
    ],
)
def test_an_expandable_segment_grows_in_granules(granule: int, requests: list[int], reserved: list[int]) -> None:
    allocator = CachingAllocator(AllocatorSettings(expandable_segments=True, large_segment_bytes=granule * MIB))
    for start, request, after in zip(accumulate([0, *requests[:-1]]), requests, reserved, strict=True):
        block = allocator.allocate(request)
        # The cached tail is extended: there is no gap.
        assert (block.address, block.size, allocator.reserved_bytes) == (start, request, after * MIB)


def holed(kept: int) -> CachingAllocator:
    """Leave blocks in use up to 15 or 20 MiB and from 65 to 70, and mapped cached ones to 20, 60 to 65 and 70 to 80."""
    allocator, [_, middle, _] = allocated(kept * MIB, (65 - kept) * MIB, 5 * MIB, settings=EXPANDABLE)
    allocator.free(middle)
    allocator.empty_cache()
    return allocator


def test_an_emptied_cache_unmaps_the_whole_granules_inside_what_is_free() -> None:
    assert figures(holed(15)) == (20 * MIB, 20 * MIB, 40 * MIB)


@pytest.mark.parametrize(
    ("kept", "requested", "address", "reserved"),
    # 5: of two as large, the one that cannot grow. 50: with what is cached behind the hole. 51: the hole is too small.
    [(15, 5, 60, 40), (15, 10, 70, 40), (15, 11, 15, 60), (15, 50, 15, 80), (15, 51, 70, 100), (20, 11, 20, 60)],
)
def test_the_first_hole_with_room_is_mapped_again(kept: int, requested: int, address: int, reserved: int) -> None:
    allocator = holed(kept)
    assert allocator.allocate(requested * MIB).address == address * MIB
    assert allocator.reserved_bytes == reserved * MIB


def test_the_granules_of_each_expandable_segment_are_counted_from_its_start() -> None:
    for order in permutations((1, 100 * MIB)):
        allocator, blocks = allocated(*order, settings=EXPANDABLE)
        allocator.free(blocks[order.index(100 * MIB)])
        allocator.empty_cache()
        assert allocator.reserved_bytes == 2 * MIB


@pytest.mark.parametrize("settings", [DEFAULT, EXPANDABLE])
@pytest.mark.parametrize("requested", [MIB, 5 * MIB, 40 * MIB])
def test_a_block_that_one_stream_cached_serves_no_other(settings: AllocatorSettings, requested: int) -> None:
    allocator, [block] = allocated(requested, settings=settings)
    taken = allocator.reserved_bytes
    allocator.free(block)
    other = allocator.allocate(requested, 1)
    assert allocator.reserved_bytes == 2 * taken
    assert allocator.allocate(requested).address == 0
    allocator.free(other)
    assert allocator.allocate(requested, 1).address == other.address
    assert allocator.reserved_bytes == 2 * taken


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


def segment_from(head: Block) -> list[Block]:
    following = head.after
    assert following is None or (following.before is head and following.address == head.address + head.size)
    return [head, *(segment_from(following) if following else [])]


def check(allocator: CachingAllocator, live: list[tuple[Block, int]]) -> None:
    known = [block for block, _ in live]
    for pool in allocator._pools.values():
        listed = [block for _, _, block in pool.cached] + [block for _, block in pool.unmapped]
        assert all(block.pool is pool and not block.in_use for block in listed)
        assert pool.cached == sorted((block.size, block.address, block) for block in listed if block.mapped)
        assert pool.unmapped == sorted((block.address, block) for block in listed if not block.mapped)
        known += listed
    segments = [segment_from(block) for block in known if block.before is None]
    blocks = sorted((block for segment in segments for block in segment), key=lambda block: block.address)
    # Each is in use or listed, and that once.
    assert sorted(map(id, blocks)) == sorted(map(id, known))
    assert all(one.address + one.size <= other.address for one, other in pairwise(blocks))
    assert all(block.size >= 512 and block.size % 512 == 0 for block in blocks)
    for segment in segments:
        assert all(one.in_use or other.in_use or one.mapped != other.mapped for one, other in pairwise(segment))
        granule = 2 * MIB if segment[0].pool.small else allocator.settings.large_segment_bytes
        assert all((block.address - segment[0].address) % granule == 0 for block in segment if not block.mapped)
    assert all(block.in_use and block.mapped and block.size >= requested for block, requested in live)
    requested, taken, reserved = figures(allocator)
    assert requested == sum(asked for _, asked in live)
    assert taken == sum(block.size for block in blocks if block.in_use)
    assert reserved == sum(block.size for block in blocks if block.mapped)
    assert requested <= taken <= reserved


@pytest.mark.parametrize("text", SETTINGS)
@hypothesis.settings(max_examples=40, deadline=None, report_multiple_bugs=False)
@hypothesis.given(steps=STEPS)
def test_whatever_is_done_no_byte_is_lost_or_handed_out_twice(text: str, steps: list[int]) -> None:
    allocator = CachingAllocator(allocator_settings(text))
    for live in play(allocator, steps):
        check(allocator, live)
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


def limited(
    capacity: int, *requests: int, settings: AllocatorSettings = DEFAULT
) -> tuple[CachingAllocator, list[Block]]:
    allocator = CachingAllocator(settings, capacity)
    return allocator, [allocator.allocate(request) for request in requests]


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


def test_what_is_cached_goes_back_before_memory_runs_out() -> None:
    allocator, [first, second] = limited(60 * MIB, 30 * MIB, 30 * MIB)
    allocator.free(first)
    with pytest.raises(OutOfSegments):
        allocator.allocate(40 * MIB)
    # In vain, but it has gone back.
    assert allocator.reserved_bytes == 30 * MIB
    allocator.free(second)
    allocator.allocate(60 * MIB)
    assert allocator.reserved_bytes == 60 * MIB


def test_a_block_that_is_in_use_in_part_stays() -> None:
    allocator, [first, _] = limited(24 * MIB, 8 * MIB, 8 * MIB)
    allocator.free(first)
    with pytest.raises(OutOfSegments):
        allocator.allocate(20 * MIB)
    assert allocator.reserved_bytes == 20 * MIB


def test_of_blocks_that_are_not_split_no_more_go_back_than_are_needed() -> None:
    settings = allocator_settings("max_split_size_mb:20")
    allocator, blocks = limited(165 * MIB, 30 * MIB, 60 * MIB, 70 * MIB, settings=settings)
    for block in blocks:
        allocator.free(block)
    # Each is too large, or too small, to be used for it: the smallest that is as large goes back.
    allocator.allocate(32 * MIB)
    assert allocator.reserved_bytes == (30 + 32 + 70) * MIB
    # None is as large: the largest ones go back, until they add up to it.
    allocator.allocate(100 * MIB)
    assert allocator.reserved_bytes == (32 + 100) * MIB
