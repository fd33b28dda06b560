"""Remedies, from bounds, if no load by ranks fits their devices and nodes."""

from collections.abc import Iterator, Sequence

from bench.measure.planning import halved
from bench.measure.quantised import divisible
from bench.meters.budget import Budget
from bench.report.advice.remedies import Remedies, fewest_ranks, fits_or_not, of_device
from bench.report.rows import Row
from bench.sharded.sharded_case import ShardedCase
from model.byte_sizes import short_size


def of_ranks(tried: Sequence[Row], cases: Sequence[ShardedCase], budget: Budget) -> Remedies:
    """Return what would load a model of which no planned load fits; `cases` are those of the run."""
    most = max(row.key.ranks for row in tried)
    case = next(case for case in cases if case.group.count == most)
    device, lines = budget.device_bytes, [*_more_memory(tried, most)]
    ranks = None
    if device is not None and all(map(_is_out_of_device_memory, tried)):
        ranks = fewest_ranks(divisible(case), most, device)
        lines += [*_cast(case, most, device), *of_device(case, most, device)]
    counts = " or ".join(f"{count:,}" for count in sorted({row.key.ranks for row in tried}))
    paragraph = f"No strategy loads {tried[0].size} on {counts} devices with this memory. What would, by theory:"
    return Remedies(paragraph, tuple(lines), ranks=ranks)


def _is_out_of_device_memory(row: Row) -> bool:
    """Return False if the device of each rank is large enough, and its host is not."""
    peak, budget = row.record.device_reserved_peak_bytes, row.record.device_budget_bytes
    return peak is None or budget is None or peak > budget


def _more_memory(tried: Sequence[Row], ranks: int) -> Iterator[str]:
    """Yield what the load takes of both memories that takes least of its devices, and then of its nodes."""
    known = [row for row in tried if row.key.ranks == ranks and row.record.device_reserved_peak_bytes is not None]
    if not known:
        return
    best = min(known, key=lambda row: (row.record.device_reserved_peak_bytes, row.record.node_private_peak_bytes or 0))
    device, node = best.record.device_reserved_peak_bytes or 0, best.record.node_private_peak_bytes or 0
    yield (
        f"more memory: {best.name} takes {short_size(device)} of each device and {short_size(node)} of a node beside "
        f"its {best.record.ranks_per_node} empty processes"
    )


def _cast(case: ShardedCase, ranks: int, device_bytes: int) -> Iterator[str]:
    """Yield the share of a rank in half as many bytes."""
    if half := halved(case):
        each = divisible(half).of_rank(ranks)
        fits = fits_or_not(divisible(half).reserved_of_rank(ranks) <= device_bytes)
        yield f"--cast {half.cast}: each of {ranks:,} takes {short_size(each)}, which {fits}"
