"""What theory lets a load do with so much memory and no more."""

from bench.measure.bounds import host_slack_bytes
from bench.measure.case import Case
from bench.meters.budget import Budget, BudgetedLoad
from model.checkpoints.checkpoint import Checkpoint

# What an allocator takes for what is asked of it, at most.
MOST_RESERVED, SEGMENTS_BYTES = 1.25, 64 * 2**20


def trial_of(case: Case, checkpoint: Checkpoint, rehearsal: Checkpoint) -> BudgetedLoad:
    """The load of a case, to be tried under budgets."""
    job = case.job(case.strategy.load, checkpoint, rehearsal)
    return BudgetedLoad(job, checkpoint.files, case.specification.footprint.sizes, case.limit_seconds)


def is_to_live(case: Case, budget: Budget, empty_bytes: int) -> bool | None:
    """Whether a load has to live under a budget, or to die (False); None: theory does not say.

    `empty_bytes` is what its process holds before. What is asked of a device is exact, but not what its allocator takes
    for that. Of a loader of the user's only the most is known, and of what the user's model computes nothing.
    """
    lives, dies = case.strategy.is_stated, False
    if budget.host_bytes is not None:
        takes, room = case.bound_bytes("host_private_peak_bytes"), budget.host_bytes - empty_bytes
        footprint = case.specification.footprint
        slack = host_slack_bytes(footprint.state_bytes, footprint.tensors)
        dies |= takes is not None and takes - slack > room
        lives &= takes is not None and takes + slack <= room and not case.own
    if budget.device_bytes is not None:
        takes = case.bound_bytes("device_requested_peak_bytes")
        dies |= takes is not None and takes > budget.device_bytes
        lives &= takes is not None and takes * MOST_RESERVED + SEGMENTS_BYTES <= budget.device_bytes
    return False if dies and case.strategy.is_stated else True if lives else None
