"""A model of PyTorch's CUDA caching allocator: which blocks and segments requests take, without a GPU.

Only what changes byte counts is here: one device, and streams that are never busy.
The rules are those of `c10/cuda/CUDACachingAllocator.cpp`, torch 2.10 to 2.14; the names are its own.
"""

from bisect import bisect_left

from bench.meters.allocator_settings import KIB, MIB, AllocatorSettings
from bench.meters.simulated.blocks import Block, Pool, can_grow_to, cut, merge_neighbours, room_at

# Every block is a multiple of this; what is smaller gets this much.
MIN_BLOCK_BYTES = 512
# The largest request that is served from the small pool.
SMALL_BYTES = MIB
# A segment of the small pool.
SMALL_SEGMENT_BYTES = 2 * MIB
# From here on a request gets a segment of its own size, rounded up to a multiple of `ROUND_LARGE_BYTES`.
MIN_LARGE_BYTES = 10 * MIB
ROUND_LARGE_BYTES = 2 * MIB

# The addresses that an expandable segment reserves, of which only what is mapped counts: a device and an eighth of it.
# This is more than any GPU has.
ADDRESS_SPACE_BYTES = KIB**6


class OutOfSegments(Exception):
    """The error for a request without memory left for it, after all cached blocks that can be were given back.

    `segment_bytes` is the size that PyTorch names: that of the segment which it asked for.
    """

    def __init__(self, segment_bytes: int) -> None:
        super().__init__(f"no memory for a segment of {segment_bytes} bytes")
        self.segment_bytes = segment_bytes


class CachingAllocator:
    """Hands out blocks, and counts bytes: requested, handed out in blocks, and taken from the driver.

    There are two limits, each None for no limit. `capacity` is that of `set_per_process_memory_fraction`, held before
    every segment: expandable ones may map more than what was held against it. `device_bytes` are those that the driver
    has, counted as they are mapped.
    """

    def __init__(
        self, settings: AllocatorSettings, capacity: int | None = None, *, device_bytes: int | None = None
    ) -> None:
        self.settings = settings
        self.capacity = capacity
        self.device_bytes = device_bytes
        self.requested_bytes = 0
        self.allocated_bytes = 0
        self.reserved_bytes = 0
        # With `device_bytes` more may be mapped in the middle of a request than is before and after it.
        self.reserved_peak_bytes = 0
        # A stream's blocks serve no other stream: each has a pool for small requests and one for large.
        self._pools: dict[tuple[int, bool], Pool] = {}
        self._next_address = 0

    def allocate(self, requested: int, stream: int = 0) -> Block:
        """Return a block for a request of one byte or more, made while `stream` is the current one.

        Raises `OutOfSegments` if that takes more than a limit allows.
        """
        size = self._rounded(requested)
        pool = self._pool(stream, small=size <= SMALL_BYTES)
        block = self._cached_block(pool, size) or self._new_block(pool, size)
        if self._should_split(block, size):
            pool.add(cut(block, size))
        block.in_use, block.requested = True, requested
        self.requested_bytes += requested
        self.allocated_bytes += block.size
        return block

    def free(self, block: Block) -> None:
        """Put a block back among the cached ones, merged with cached neighbours."""
        self.requested_bytes -= block.requested
        self.allocated_bytes -= block.size
        block.in_use, block.requested = False, 0
        merge_neighbours(block)
        block.pool.add(block)

    def empty_cache(self) -> None:
        """Give back to the driver all memory that no block in use is a part of."""
        for pool in self._pools.values():
            for _, _, block in list(pool.cached):
                if block.expandable:
                    self._unmap(block)
                    if not (block.mapped or block.split):
                        # The addresses of a whole segment go back too.
                        pool.remove(block)
                elif not block.split:
                    self._release(block)

    def _pool(self, stream: int, *, small: bool) -> Pool:
        pool = self._pools.get((stream, small))
        if pool is None:
            pool = self._pools[stream, small] = Pool(small)
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

    def _cached_block(self, pool: Pool, size: int) -> Block | None:
        """Return the smallest cached block that is large enough, taken from the pool; None: there is none."""
        place = bisect_left(pool.cached, (size,))  # A shorter tuple sorts before every longer one.
        if place == len(pool.cached):
            return None
        if self.settings.expandable_segments:
            # A block that can grow counts as large as it can grow to: others are preferred.
            while place + 1 < len(pool.cached) and can_grow_to(pool.cached[place + 1][2]) < can_grow_to(
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

    def _new_block(self, pool: Pool, size: int) -> Block:
        """Return a block from the driver, in no pool yet; cached blocks go back to the driver if it needs them."""
        segment = self._segment_bytes(pool, size)
        block = self._asked_block(pool, size, segment)
        if block is None and self._release_oversize(pool, size):
            block = self._asked_block(pool, size, segment)
        if block is None:
            self.empty_cache()
            block = self._asked_block(pool, size, segment)
        if block is None:
            raise OutOfSegments(segment)
        return block

    def _segment_bytes(self, pool: Pool, size: int) -> int:
        if pool.small:
            return SMALL_SEGMENT_BYTES
        if size < MIN_LARGE_BYTES:
            return self.settings.large_segment_bytes
        return _round_up(size, ROUND_LARGE_BYTES)

    def _asked_block(self, pool: Pool, size: int, segment: int) -> Block | None:
        """Return a block from the driver; None if a limit forbids it."""
        if self.capacity is not None and self.reserved_bytes + segment > self.capacity:
            return None
        if self.settings.expandable_segments:
            return self._grown_block(pool, size)
        if not self._driver_has(segment):
            return None
        self._reserve(segment)
        return self._segment(pool, segment)

    def _reserve(self, count: int) -> None:
        self.reserved_bytes += count
        self.reserved_peak_bytes = max(self.reserved_peak_bytes, self.reserved_bytes)

    def _driver_has(self, count: int) -> bool:
        return self.device_bytes is None or self.reserved_bytes + count <= self.device_bytes

    def _release_oversize(self, pool: Pool, size: int) -> bool:
        """Give back blocks too large to be split: one as large as is needed, or the largest that add up to it."""
        needed = max(size, self.settings.max_split_bytes)
        # Expandable blocks are all unmapped when the cache is emptied.
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

    def _segment(self, pool: Pool, size: int, *, mapped: bool = True) -> Block:
        # Segments never merge, so their addresses need not be real. Granules are counted from where one starts.
        address = self._next_address if mapped else _round_up(self._next_address, self._granule(pool))
        self._next_address = address + size
        return Block(address, size, pool, expandable=not mapped, mapped=mapped)

    def _grown_block(self, pool: Pool, size: int) -> Block | None:
        """Return a block at the lowest address of an expandable segment that has room for it, mapped as far as needed.

        None if the driver has not enough: what was mapped by then stays mapped.
        """
        block = next((found for _, block in pool.unmapped if (found := room_at(block, size))), None)
        if block is None:
            block = self._segment(pool, self._address_space_bytes(pool), mapped=False)
            pool.add(block)
        if not block.mapped and not self._map(block, min(block.size, size)):
            return None
        while block.size < size:
            assert block.after is not None
            following = block.after
            # Mapped, it takes in the cached block before it.
            if not self._map(following, min(size - block.size, following.size)):
                return None
            block = following
        pool.remove(block)
        return block

    def _address_space_bytes(self, pool: Pool) -> int:
        if self.device_bytes is None:
            return ADDRESS_SPACE_BYTES
        return _round_up(self.device_bytes + self.device_bytes // 8, self._granule(pool))

    def _granule(self, pool: Pool) -> int:
        """Return the bytes that an expandable segment is mapped in."""
        return SMALL_SEGMENT_BYTES if pool.small else self.settings.large_segment_bytes

    def _map(self, block: Block, size: int) -> bool:
        """Map the start of a block that is not mapped; False where the driver has not enough for all of it."""
        pool = block.pool
        size = _round_up(size, self._granule(pool))
        if not self._driver_has(size):
            return False
        pool.remove(block)
        if size < block.size:
            pool.add(cut(block, size))
        block.mapped = True
        self._reserve(block.size)
        merge_neighbours(block)
        pool.add(block)
        return True

    def _unmap(self, block: Block) -> None:
        """Unmap the whole granules inside a cached block."""
        pool, granule = block.pool, self._granule(block.pool)
        start = _round_up(block.address, granule)
        end = (block.address + block.size) // granule * granule
        if start >= end:
            return
        pool.remove(block)
        if start > block.address:
            ahead, block = block, cut(block, start - block.address)
            pool.add(ahead)
        if end < block.address + block.size:
            pool.add(cut(block, end - block.address))
        block.mapped = False
        self.reserved_bytes -= block.size
        merge_neighbours(block)
        pool.add(block)


def _round_up(count: int, step: int) -> int:
    return -(-count // step) * step


def _power_of_two_step(count: int, divisions: int) -> int:
    """Return the step that `count` is rounded up to: the power of two at or below it, in so many parts."""
    floor = 1 << (count.bit_length() - 1)
    return floor >> (divisions.bit_length() - 1)
