"""Budgets of planned ranks: of the device of each, and of the host memory that the ranks of a node share."""

from collections.abc import Iterator, Mapping

from bench.meters.budget import Budget, BudgetOutcome
from bench.meters.measure import Measurement
from bench.sharded.sharded_case import ShardedCase
from model.byte_sizes import short_size


def planned_outcome(
    case: ShardedCase, measured: Mapping[int, Measurement], budget: Budget, empty_bytes: int
) -> BudgetOutcome:
    """Return whether planned loads fit: the worst rank its device, and the ranks of the fullest node their host.

    `measured` has one rank of all that have the same to do. Each process takes `empty_bytes` of the host before it
    loads. What both memories hold is compared, so the reason names each that is too small.
    """
    reasons = [*_of_device(measured, budget.device_bytes), *_of_host(case, measured, budget.host_bytes, empty_bytes)]
    return BudgetOutcome(not reasons, "; ".join(reasons), empty_bytes)


def _of_device(measured: Mapping[int, Measurement], budget: int | None) -> Iterator[str]:
    reserved = {rank: one.device.reserved_bytes or 0 for rank, one in measured.items()}
    worst = max(reserved, key=lambda rank: reserved[rank])
    if budget is not None and reserved[worst] > budget:
        yield f"out of device memory: rank {worst} needs {short_size(reserved[worst])}, and has {short_size(budget)}"


def _of_host(
    case: ShardedCase, measured: Mapping[int, Measurement], budget: int | None, empty_bytes: int
) -> Iterator[str]:
    representative = case.representatives(measured)
    taken = [(measured[rank].host.private_bytes or 0) + empty_bytes for rank in representative]
    node = max(case.group.nodes(), key=lambda ranks: sum(taken[rank] for rank in ranks))
    total = sum(taken[rank] for rank in node)
    if budget is not None and total > budget:
        worst, share = max(taken[rank] for rank in node), budget // len(node)
        yield (
            f"out of host memory: the {len(node)} ranks of a node need {short_size(total)} with their empty processes, "
            f"and have {short_size(budget)}; one needs up to {short_size(worst)}, and its share is {short_size(share)}"
        )
