"""Live allocations at a peak, by the line of the recipe that allocated them."""

from collections.abc import Iterator, Sequence

from bench.meters.allocations import LiveAllocation
from bench.report.rows import CaseResult
from model.byte_sizes import binary_size
from model.printable import printable

# More lines than a recipe has explain nothing.
MOST_LINES = 8


def alive_lines(alive: Sequence[LiveAllocation]) -> list[str]:
    """Return a line for every line of the recipe, the one with most bytes first."""
    lines = [_line(held.bytes, held.tensors, f"{held.line} {held.code}".strip()) for held in alive[:MOST_LINES]]
    if rest := alive[MOST_LINES:]:
        lines.append(_line(sum(h.bytes for h in rest), sum(h.tensors for h in rest), f"{len(rest)} other lines"))
    return lines


def explanation(result: CaseResult) -> Iterator[str]:
    """Yield lines on the allocations that were alive at the peaks of a measurement, peak by peak."""
    for figure, alive in (result.record.alive_at_peak or {}).items():
        if alive:
            name = figure.removesuffix("_bytes").replace("_", " ")
            yield f"{result.key.title}: {name} {binary_size(result.record.value(figure), 2, few=0.1)}"
            yield from alive_lines([LiveAllocation(**held) for held in alive])


def _line(count: int, tensors: int, where: str) -> str:
    many = "" if tensors == 0 else f" in {tensors:,} tensor{'s' * (tensors != 1)}"
    return f"    {binary_size(count, 2, few=0.1)}{many}: {printable(where)}"
