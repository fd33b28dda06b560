"""A model of PyTorch's CUDA caching allocator: which blocks and segments requests take, without a GPU.

Only what changes byte counts is here: one device, and streams that are never busy.
The rules are those of `c10/cuda/CUDACachingAllocator.cpp`, torch 2.10 to 2.14; the names are its own.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass, field

from bench.meters.simulated.allocator_settings import KIB, MIB, AllocatorSettings

# Every block is a multiple of this; what is smaller gets this much.
MIN_BLOCK_BYTES = 512
# The largest request that is served from the small pool.
SMALL_BYTES = MIB
# A segment of the small pool.
SMALL_SEGMENT_BYTES = 2 * MIB
# From here on a request gets a segment of its own size, rounded up to a multiple of `ROUND_LARGE_BYTES`.
MIN_LARGE_BYTES = 10 * MIB
ROUND_LARGE_BYTES = 2 * MIB

# More than any GPU has: the addresses that an expandable segment reserves, of which only what is mapped counts.
ADDRESS_SPACE_BYTES = KIB**6


@dataclass(eq=False)
class Block:
    """A stretch of a segment: in use, cached, or, in an expandable segment, not mapped."""

    address: int
    size: int
    pool: "_Pool"
    expandable: bool
    mapped: bool = True
    in_use: bool = False
    requested: int = 0
    before: "Block | None" = None
    after: "Block | None" = None

    @property
    def split(self) -> bool:
        return self.before is not None or self.after is not None


@dataclass(eq=False)
class _Pool:
    """The cached blocks of a stream for small or for large requests, smallest first; the unmapped ones by address."""

    small: bool
    cached: list[tuple[int, int, Block]] = field(default_factory=list)
    unmapped: list[tuple[int, Block]] = field(default_factory=list)

    def add(self, block: Block) -> None:
        if block.mapped:
            insort(self.cached, (block.size, block.address, block))
        else:
            insort(self.unmapped, (block.address, block))

    def remove(self, block: Block) -> None:
        if block.mapped:
            del self.cached[bisect_left(self.cached, (block.size, block.address, block))]
        else:
            del self.unmapped[bisect_left(self.unmapped, (block.address, block))]


class OutOfSegments(Exception):
    """The driver has no more memory, with all cached blocks given back to it that can be."""


class CachingAllocator:
    """Hands out blocks, and keeps count in bytes of what was asked for, handed out, and taken from the driver.

    Of the driver it gets `capacity` bytes at most; None: however many it wants.
    """

    def __init__(self, settings: AllocatorSettings, capacity: int | None = None) -> None:
        self.settings = settings
        self.capacity = capacity
        self.requested_bytes = 0
        self.allocated_bytes = 0
        self.reserved_bytes = 0
        # What was made for a stream serves no other: each has a pool for small requests and one for large.
        self._pools: dict[tuple[int, bool], _Pool] = {}
        self._next_address = 0

    def allocate(self, requested: int, stream: int = 0) -> Block:
        """A block for a request of one byte or more, made while `stream` is the current one.

        Raises `OutOfSegments` if that takes more than the capacity.
        """
        size = self._rounded(requested)
        pool = self._pool(stream, small=size <= SMALL_BYTES)
        block = self._cached_block(pool, size) or self._new_block(pool, size)
        if self._should_split(block, size):
            pool.add(self._cut(block, size))
        block.in_use, block.requested = True, requested
        self.requested_bytes += requested
        self.allocated_bytes += block.size
        return block

    def free(self, block: Block) -> None:
        """Put a block back among the cached ones, merged with cached neighbours."""
        self.requested_bytes -= block.requested
        self.allocated_bytes -= block.size
        block.in_use, block.requested = False, 0
        self._merge_neighbours(block)
        block.pool.add(block)

    def empty_cache(self) -> None:
        """Give back to the driver what no block in use is a part of."""
        for pool in self._pools.values():
            for _, _, block in list(pool.cached):
                if block.expandable:
                    self._unmap(block)
                elif not block.split:
                    self._release(block)

    def _pool(self, stream: int, *, small: bool) -> _Pool:
        pool = self._pools.get((stream, small))
        if pool is None:
            pool = self._pools[stream, small] = _Pool(small)
        return pool

    def _rounded(self, requested: int) -> int:
        if requested < MIN_BLOCK_BYTES:
            return MIN_BLOCK_BYTES
        divisions = self.settings.divisions(requested)
        if divisions > 1 and requested > MIN_BLOCK_BYTES * divisions:
            return _round_up(requested, _power_of_two_step(requested, divisions))
        return _round_up(requested, MIN_BLOCK_BYTES)

    def _should_split(self, block: Block, size: int) -> bool:
        remaining = block.size - size
        if block.pool.small or self.settings.expandable_segments:
            return remaining >= MIN_BLOCK_BYTES
        return size < self.settings.max_split_bytes and remaining > SMALL_BYTES

    def _cached_block(self, pool: _Pool, size: int) -> Block | None:
        """The smallest cached block that is large enough, taken from the pool; None where there is none."""
        place = bisect_left(pool.cached, (size,))  # A shorter tuple sorts before every longer one.
        if place == len(pool.cached):
            return None
        if self.settings.expandable_segments:
            # A block that can grow counts as large as it can grow to: others are preferred.
            while place + 1 < len(pool.cached) and _can_grow_to(pool.cached[place + 1][2]) < _can_grow_to(
                pool.cached[place][2]
            ):
                place += 1
        block = pool.cached[place][2]
        if size < self.settings.max_split_bytes <= block.size:
            return None
        if size >= self.settings.max_split_bytes and block.size >= size + self.settings.max_non_split_rounding_bytes:
            return None
        pool.remove(block)
        return block

    def _new_block(self, pool: _Pool, size: int) -> Block:
        """A block from the driver, taken from no pool yet."""
        if pool.small:
            segment = SMALL_SEGMENT_BYTES
        elif size < MIN_LARGE_BYTES:
            segment = self.settings.large_segment_bytes
        else:
            segment = _round_up(size, ROUND_LARGE_BYTES)
        if self.settings.expandable_segments:
            # PyTorch counts less against a fraction of a device than it maps then: here the capacity is one.
            self._require_room(pool, size, _round_up(size, self._granule(pool)))
            return self._grown_block(pool, size)
        self._require_room(pool, size, segment)
        self.reserved_bytes += segment
        return self._segment(pool, segment)

    def _require_room(self, pool: _Pool, size: int, segment: int) -> None:
        """Give cached blocks back to the driver if that is what it takes to get so many bytes more from it."""
        if self._has_room(segment) or (self._release_oversize(pool, size) and self._has_room(segment)):
            return
        self.empty_cache()
        if not self._has_room(segment):
            raise OutOfSegments

    def _has_room(self, segment: int) -> bool:
        return self.capacity is None or self.reserved_bytes + segment <= self.capacity

    def _release_oversize(self, pool: _Pool, size: int) -> bool:
        """Give back blocks too large to be split: one as large as is needed, or the largest that add up to it."""
        needed = max(size, self.settings.max_split_bytes)
        # Of those that can be unmapped, all are when the cache is emptied.
        cached = [block for _, _, block in pool.cached if not block.expandable]
        oversize = [block for block in cached if block.size >= self.settings.max_split_bytes]
        enough = [block for block in oversize if block.size >= needed]
        released = 0
        for block in enough[:1] or reversed(oversize):
            if released >= needed:
                break
            released += block.size
            self._release(block)
        return released >= needed

    def _release(self, block: Block) -> None:
        block.pool.remove(block)
        self.reserved_bytes -= block.size

    def _segment(self, pool: _Pool, size: int, *, mapped: bool = True) -> Block:
        # Segments never merge, so their addresses need not be real. Granules are counted from where one starts.
        address = self._next_address if mapped else _round_up(self._next_address, self._granule(pool))
        self._next_address = address + size
        return Block(address, size, pool, expandable=not mapped, mapped=mapped)

    def _grown_block(self, pool: _Pool, size: int) -> Block:
        """A block at the lowest address of an expandable segment that has room for it, mapped as far as needed."""
        block = next((found for _, block in pool.unmapped if (found := _room_at(block, size))), None)
        if block is None:
            block = self._segment(pool, ADDRESS_SPACE_BYTES, mapped=False)
            pool.add(block)
        if not block.mapped:
            self._map(block, min(block.size, size))
        while block.size < size:
            assert block.after is not None
            following = block.after
            # Mapped, it takes in the cached block before it.
            self._map(following, min(size - block.size, following.size))
            block = following
        pool.remove(block)
        return block

    def _granule(self, pool: _Pool) -> int:
        """What an expandable segment is mapped in."""
        return SMALL_SEGMENT_BYTES if pool.small else self.settings.large_segment_bytes

    def _map(self, block: Block, size: int) -> None:
        pool = block.pool
        pool.remove(block)
        size = _round_up(size, self._granule(pool))
        if size < block.size:
            pool.add(self._cut(block, size))
        block.mapped = True
        self.reserved_bytes += block.size
        self._merge_neighbours(block)
        pool.add(block)

    def _unmap(self, block: Block) -> None:
        """Unmap the whole granules inside a cached block."""
        pool, granule = block.pool, self._granule(block.pool)
        start = _round_up(block.address, granule)
        end = (block.address + block.size) // granule * granule
        if start >= end:
            return
        pool.remove(block)
        if start > block.address:
            ahead, block = block, self._cut(block, start - block.address)
            pool.add(ahead)
        if end < block.address + block.size:
            pool.add(self._cut(block, end - block.address))
        block.mapped = False
        self.reserved_bytes -= block.size
        self._merge_neighbours(block)
        pool.add(block)

    def _cut(self, block: Block, size: int) -> Block:
        """Shorten a block to `size`; what is left of it is returned, and is in no pool."""
        rest = Block(block.address + size, block.size - size, block.pool, block.expandable, block.mapped)
        rest.before, rest.after = block, block.after
        if rest.after:
            rest.after.before = rest
        block.after, block.size = rest, size
        return rest

    def _merge_neighbours(self, block: Block) -> None:
        """Take in the neighbours that are as free as this block; they leave their pool."""
        before, after = block.before, block.after
        if before and not before.in_use and before.mapped == block.mapped:
            before.pool.remove(before)
            block.address, block.size = before.address, before.size + block.size
            block.before = before.before
            if block.before:
                block.before.after = block
        if after and not after.in_use and after.mapped == block.mapped:
            after.pool.remove(after)
            block.size += after.size
            block.after = after.after
            if block.after:
                block.after.before = block


def _can_grow_to(block: Block) -> int:
    return block.size + (block.after.size if block.after and not block.after.mapped else 0)


def _room_at(block: Block, size: int) -> Block | None:
    """Where `size` bytes fit from an unmapped block on, or from the cached one before it; None if they do not."""
    first = block.before if block.before and not block.before.in_use else block
    room, following = 0, first
    while room < size and following and not following.in_use:
        room += following.size
        following = following.after  # type: ignore[assignment]
    return first if room >= size else None


def _round_up(count: int, step: int) -> int:
    return -(-count // step) * step


def _power_of_two_step(count: int, divisions: int) -> int:
    """What `count` is rounded up to a multiple of: the power of two at or below it, in so many parts."""
    floor = 1 << (count.bit_length() - 1)
    return floor >> (divisions.bit_length() - 1)
