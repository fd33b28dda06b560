"""The record of one benchmark: what pytest-benchmark's JSON holds under `extra_info`.

Bytes are integers, seconds are floats, and what was not measured is None, never 0. A peak-memory benchmark
fills in the peaks, a load-time benchmark the seconds.
"""

from typing import Any

Record = dict[str, Any]

SCHEMA = 1

FIELDS = (
    *("schema", "strategy", "loader", "model", "state_digest", "size"),
    *("layout", "dtype", "cast", "device", "stand_in", "planned", "cache", "ownership"),
    *("state_bytes", "largest_tensor_bytes", "largest_file_bytes", "tensors"),
    *("checkpoint_bytes", "missing_bytes", "largest_saved_bytes", "converted_bytes", "converted_to_bytes"),
    *("mapped_bytes", "largest_converted_to_bytes", "largest_conversion_bytes", "conversion_slot_bytes"),
    *("build_peak_bytes", "built_private_bytes", "built_file_bytes", "beside_bytes", "first_use"),
    *("device_requested_peak_bytes", "device_allocated_peak_bytes", "device_reserved_peak_bytes"),
    *("device_peak_ratio", "device_bound_ratio", "device_driver_peak_bytes"),
    *("host_private_peak_bytes", "host_file_peak_bytes", "host_pinned_peak_bytes", "host_total_peak_bytes"),
    *("host_peak_ratio", "host_bound_ratio", "host_file_bound_ratio"),
    *("load_seconds", "first_logits_seconds", "forward_seconds"),
    *("bytes_per_second", "limit", "limit_bytes_per_second", "limit_fraction"),
    *("minor_faults", "major_faults"),
    *("device_budget_bytes", "host_budget_bytes", "fits", "fate"),
    *("smallest_device_bytes", "smallest_host_bytes", "smallest_tolerance_bytes"),
    *("retained_bytes", "retained_again_bytes"),
    *(
        "read_bytes",
        "ranks",
        "parallelism",
        "share_bytes",
        "node_private_peak_bytes",
        "node_file_peak_bytes",
        "per_rank",
    ),
    "peer",
    "alive_at_peak",
    "timeline",
)


def blank_record() -> Record:
    """A record of which nothing is known yet."""
    return dict.fromkeys(FIELDS) | {"schema": SCHEMA}


def row_name(record: Record) -> str:
    """What the table calls what was measured: the strategy, and of many processes how they share the model."""
    if record.get("ranks"):
        return f"{record['strategy']} {record['parallelism']} x{record['ranks']}"
    return record["strategy"] or f"limit: {record['limit']}"


def ratio(count: int | None, state_bytes: int) -> float | None:
    """A peak, or a bound, as a multiple of S."""
    return None if count is None else count / state_bytes
