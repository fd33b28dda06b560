from itertools import accumulate, permutations

import pytest

from bench.meters.allocator_settings import KIB, MIB, AllocatorSettings, allocator_settings
from bench.meters.simulated.allocator import CachingAllocator, OutOfSegments
from bench.meters.simulated.blocks import Block
from bench.meters.simulated.conftest import figures, limited

DEFAULT = AllocatorSettings()

EXPANDABLE = AllocatorSettings(expandable_segments=True)

# Wasted at most, held (in MiB) and requested, where blocks of 40 MiB are oversize: is what is held taken?
TAKEN = [(20, 60, 60 * MIB), (20, 60, 40 * MIB + 512), (26, 66, 40 * MIB + 512), (20, 40, 40 * MIB)]

REFUSED = [(20, 60, 40 * MIB), (26, 66, 40 * MIB), (20, 40, 40 * MIB - 512)]


def allocated(*requests: int, settings: AllocatorSettings = DEFAULT) -> tuple[CachingAllocator, list[Block]]:
    allocator = CachingAllocator(settings)
    return allocator, [allocator.allocate(request) for request in requests]


def cached(size: int, settings: AllocatorSettings = DEFAULT) -> CachingAllocator:
    """An allocator that holds one block, and it is free."""
    allocator, [block] = allocated(size, settings=settings)
    allocator.free(block)
    return allocator


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
