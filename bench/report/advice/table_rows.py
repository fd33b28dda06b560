"""Rows of tables for the tests of advice, as runs have them."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from bench.measure.case import Case
from bench.measure.planning import plan as plan_anew
from bench.meters.budget import Budget
from bench.meters.measure import Measurement
from bench.record.record import Record
from bench.record.row_key import RowKey
from bench.report.advice.advice import Advice, advised
from bench.report.rows import Problem, Row

GIB, MIB = 2**30, 2**20

plan = cache(plan_anew)


def row(strategy: str, *, fits: bool | None = True, problem: Problem | None = None, **record: Any) -> Row:
    """Return the row of a load by one process, to a device with 2 GiB."""
    known = {
        "strategy": strategy,
        "state_bytes": GIB,
        "device_budget_bytes": 2 * GIB,
        "device": "cuda",
        "device_requested_peak_bytes": GIB,
        "device_reserved_peak_bytes": GIB,
        "device_peak_ratio": 1.0,
        "host_private_peak_bytes": 0,
        "host_peak_ratio": 0.0,
        "fits": fits,
        "ownership": "owned",
    }
    timed = Record(device=record.pop("timed_on", "cuda"))
    size = record.pop("size", "small")
    return Row(RowKey(strategy, size), Record.read(known | record), (problem,) if problem else (), timed)


def rank_row(strategy: str, ranks: int, parallelism: str = "fsdp", *, fits: bool = True, **record: Any) -> Row:
    """Return the row of a planned load by ranks, each with 2 GiB of a device, and 64 GiB for up to eight of them."""
    share = record.pop("share_bytes", 8 * GIB // ranks)
    known = {
        "strategy": strategy,
        "state_bytes": 8 * GIB,
        "share_bytes": share,
        "ranks": ranks,
        "ranks_per_node": min(ranks, 8),
        "parallelism": parallelism,
        "device_budget_bytes": 2 * GIB,
        "host_budget_bytes": 64 * GIB,
        "device": "sim",
        "device_requested_peak_bytes": share,
        "device_reserved_peak_bytes": share,
        "node_private_peak_bytes": 0,
        "fits": fits,
        "ownership": "owned",
    }
    return Row(RowKey(strategy, "small", parallelism, ranks), Record.read(known | record))


def never(_: Case) -> Measurement:
    """Plan nothing, since nothing has to be planned."""
    raise AssertionError("nothing has to be planned")


def would(
    table: Sequence[Row], cases: Sequence[Case], budget: Budget, planned: Callable[[Case], Measurement] = plan
) -> Advice:
    """Return the advice of a run."""
    advice = advised(table, cases, planned, budget)
    assert advice
    return advice


def said(*table: Row) -> Advice:
    """Return the advice for loads of which one fits."""
    return would(table, [], Budget(2 * GIB), never)
