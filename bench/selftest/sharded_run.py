"""Loads by many processes to make tables and pages of."""

from typing import Any

from bench.record.record import Record
from bench.record.row_key import RowKey
from bench.report.rows import CaseResult, Problem, Status
from bench.selftest.recorded_run import S, metered
from bench.selftest.small_suite import STATS


def of_ranks(strategy: str, parallelism: str, ranks: int, device: float = 1.0, **more: Any) -> dict[str, Any]:
    """The record of what they took, whose worst rank takes `device` shares of the model there."""
    share = S // ranks
    return metered("streamed") | {
        "strategy": strategy,
        "ranks": ranks,
        "parallelism": parallelism,
        "share_bytes": share,
        "device_requested_peak_bytes": int(device * share),
        "device_allocated_peak_bytes": int(device * share),
        "device_reserved_peak_bytes": int(device * share),
        "device_peak_ratio": device * share / S,
        "device_bound_ratio": device * share / S,
        "host_private_peak_bytes": 2 * S,
        "host_peak_ratio": 2.0,
        "host_bound_ratio": 2.0,
        "node_private_peak_bytes": 2 * S * min(ranks, 8),
        "node_file_peak_bytes": S,
        "read_bytes": S * ranks,
        "limit": None,
        **more,
    }


def taken(strategy: str, parallelism: str, ranks: int, device: float = 1.0, **more: Any) -> CaseResult:
    record = of_ranks(strategy, parallelism, ranks, device, **more)
    return CaseResult(Record.read(record).row_key, Record.read(record))


def seconds(load: CaseResult, first_logits: float) -> CaseResult:
    """The times of the same load, taken on the CPU."""
    times = {"load_seconds": first_logits / 2, "first_logits_seconds": first_logits, "bytes_per_second": 1.5e9}
    return CaseResult(load.key, Record.read({"device": "cpu", "host_bound_ratio": 1.0, **times}))


def skipped(strategy: str, parallelism: str, ranks: int, reason: str = "its reader wants bytes") -> CaseResult:
    return CaseResult(RowKey(strategy, "small", parallelism, ranks), problem=Problem(Status.SKIPPED, reason))


def plan(*ranks: int, **more: Any) -> list[CaseResult]:
    """Some strategies in the order of a run: layout by layout, and in each by ranks and parallelism."""
    ways = [(count, way) for count in ranks for way in ("fsdp", "tensor")]
    names = ("load_then_shard", "streamed")
    more = {"planned": True, "read_bytes": None} | more
    return [taken(name, way, count, **more) for name in names for count, way in ways]


def run(ranks: int) -> list[CaseResult]:
    """Return the loads of a plan with one number of ranks, measured and timed."""
    loads = plan(ranks, planned=False, read_bytes=ranks * S)
    return [*loads, *(seconds(load, 1234.56) for load in loads)]


def benchmarks(ranks: int = 2) -> list[dict[str, Any]]:
    """Return the benchmarks in the file of a run with one strategy."""
    records = [of_ranks("streamed", parallelism, ranks) for parallelism in ("fsdp", "tensor")]
    return [
        {
            "fullname": f"bench/t.py::t[streamed-{record['parallelism']}-small-x{ranks}-sim]",
            "extra_info": record,
            "stats": STATS,
        }
        for record in records
    ]
