"""Results of benchmarks to make tables of."""

from typing import Any

from bench.record.record import Record
from bench.record.row_key import RowKey
from bench.report.rows import CaseResult, Problem

S, L = 702_480_384, 154_389_504


def memory(strategy: str, ratio: float, *, device: float | None = None, mapped: bool = False) -> CaseResult:
    record: dict[str, Any] = {
        "state_bytes": S,
        "largest_tensor_bytes": L,
        "ownership": "mapped" if mapped else "owned",
        "device_requested_peak_bytes": device and int(device * S),
        "device_allocated_peak_bytes": device and int(device * S),
        "device_reserved_peak_bytes": device and int(device * S),
        "device_peak_ratio": device,
        "device_bound_ratio": device,
        "host_private_peak_bytes": int(ratio * S),
        "host_peak_ratio": ratio,
        "host_bound_ratio": ratio,
        "host_file_peak_bytes": S if mapped else 0,
        "host_file_bound_ratio": float(mapped),
        "load_seconds": None,
    }
    return CaseResult(RowKey(strategy, "small"), Record.read(record))


def seconds(strategy: str, first_logits: float, problem: Problem | None = None) -> CaseResult:
    times: dict[str, Any] = {
        "load_seconds": first_logits / 2,
        "first_logits_seconds": first_logits,
        "bytes_per_second": 1.5e9,
        "ownership": "mapped" if strategy == "mmap_assign" else "owned",
    }
    return CaseResult(RowKey(strategy, "small"), Record.read(times), problem)


def against_limit(strategy: str, first_logits: float, fraction: float, faults: tuple[int, int]) -> CaseResult:
    """A timed load that was held against the best that the machine could do."""
    timed = seconds(strategy, first_logits)
    timed.record.update(limit_fraction=fraction, minor_faults=faults[0], major_faults=faults[1])
    return timed


def limit(kind: str, rate: float) -> CaseResult:
    record = {"strategy": None, "limit": kind, "state_bytes": S, "largest_tensor_bytes": L, "bytes_per_second": rate}
    return CaseResult(RowKey(kind, "small", roofline=True), Record.read(record))


RUN = [
    memory("baseline", 2.0),
    memory("mmap_assign", 0.004, mapped=True),
    memory("per_tensor", 1.22),
    seconds("baseline", 3.0),
    seconds("mmap_assign", 0.25),
    seconds("per_tensor", 1.0),
]


def tried(strategy: str, *, fits: bool, fate: str | None = None, **smallest: int) -> CaseResult:
    known = {"strategy": strategy, "state_bytes": S, "largest_tensor_bytes": L}
    return CaseResult(RowKey(strategy, "small"), Record.read(known | {"fits": fits, "fate": fate} | smallest))
