"""Blocks of the caching allocator's segments, and the pools of those that are free."""

from bisect import bisect_left, insort
from dataclasses import dataclass, field


@dataclass(eq=False)
class Block:
    """A stretch of a segment: in use, cached, or, in an expandable segment, not mapped."""

    address: int
    size: int
    pool: "Pool"
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
class Pool:
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


def cut(block: Block, size: int) -> Block:
    """Shorten a block to `size`; return the rest of it, which is in no pool."""
    rest = Block(block.address + size, block.size - size, block.pool, block.expandable, block.mapped)
    rest.before, rest.after = block, block.after
    if rest.after:
        rest.after.before = rest
    block.after, block.size = rest, size
    return rest


def merge_neighbours(block: Block) -> None:
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


def can_grow_to(block: Block) -> int:
    return block.size + (block.after.size if block.after and not block.after.mapped else 0)


def room_at(block: Block, size: int) -> Block | None:
    """Return the block from which `size` bytes fit: an unmapped one, or the cached one before it; None: no room."""
    first = block.before if block.before and not block.before.in_use else block
    room, following = 0, first
    while room < size and following and not following.in_use:
        room += following.size
        following = following.after  # type: ignore[assignment]
    return first if room >= size else None
