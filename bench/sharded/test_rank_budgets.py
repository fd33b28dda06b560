"""Budgets of planned ranks, at their edges."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from bench.meters.budget import Budget
from bench.sharded.rank_budgets import planned_outcome
from bench.sharded.rank_group import RankGroup
from bench.sharded.sharded_case import ShardedCase

MIB = 2**20
EMPTY = 200 * MIB
# Rank 0 leads, others are alike, and the last of 64 has less of the vocabulary.
CASE = ShardedCase("broadcast", "tiny", "sim", "float32", planned=True, group=RankGroup(64, (0,), 8))


def taken(device: int, host: int) -> Any:
    """A measurement of a rank that takes so many bytes."""
    return SimpleNamespace(device=SimpleNamespace(reserved_bytes=device), host=SimpleNamespace(private_bytes=host))


MEASURED = {0: taken(60 * MIB, 30 * MIB), 1: taken(50 * MIB, 10 * MIB), 63: taken(40 * MIB, 5 * MIB)}
# The node of rank 0 takes most.
NODE = 8 * EMPTY + 100 * MIB


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        (Budget(60 * MIB, NODE), ""),
        (Budget(60 * MIB), ""),
        (Budget(None, NODE), ""),
        (Budget(60 * MIB - 1, NODE), "out of device memory: rank 0 needs 60 MiB, and has 60 MiB"),
        (
            Budget(60 * MIB, NODE - 8 * MIB),
            "out of host memory: the 8 ranks of a node need 1.7 GiB with their empty processes, and have 1.7 GiB; one "
            "needs up to 230 MiB, and its share is 211.5 MiB",
        ),
        (
            Budget(30 * MIB, 1000 * MIB),
            "out of device memory: rank 0 needs 60 MiB, and has 30 MiB; out of host memory: the 8 ranks of a node need "
            "1.7 GiB with their empty processes, and have 1000 MiB; one needs up to 230 MiB, and its share is 125 MiB",
        ),
    ],
)
def test_the_worst_rank_and_the_fullest_node_have_to_fit(budget: Budget, reason: str) -> None:
    outcome = planned_outcome(CASE, MEASURED, budget, EMPTY)
    assert (outcome.fits, outcome.failure_reason) == (not reason, reason)


def test_a_node_with_fewer_ranks_needs_less_memory() -> None:
    case = replace(CASE, group=RankGroup(64, (0,), 4))
    enough = 4 * EMPTY + 60 * MIB
    assert planned_outcome(case, MEASURED, Budget(None, enough), EMPTY).fits
    assert not planned_outcome(case, MEASURED, Budget(None, enough - 1), EMPTY).fits
