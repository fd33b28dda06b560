"""The record of one benchmark: what pytest-benchmark's JSON holds under `extra_info`.

Bytes are integers, seconds are floats, and what was not measured is None, never 0. A peak-memory benchmark
fills in the peaks, a load-time benchmark the seconds.
"""

from typing import Any

from bench.record.figures import FIGURES, LIMIT
from bench.record.kinds import (
    COUNT,
    FLAG,
    NUMBER,
    PLAIN,
    POSITIVE,
    SIGNED,
    TEXT,
    Kind,
    each,
    fields,
    nullable,
    of_equal_lengths,
)

Record = dict[str, Any]

SCHEMA = 1

_TEXT, _FLAG, _NUMBER, _POSITIVE, _SIGNED = map(nullable, (TEXT, FLAG, NUMBER, POSITIVE, SIGNED))

_SERIES = nullable(of_equal_lengths({"seconds": NUMBER, "bytes": NUMBER}))
_HELD = fields({"bytes": NUMBER, "tensors": NUMBER, "line": TEXT, "code": TEXT})
_PEER = fields(
    {"versions": fields({}, rest=_TEXT), "backend": _TEXT}
    | dict.fromkeys(("settings", "destination", "formats", "devices"), TEXT)
)

# Every field, and the kind of its values. What a load held above a level before it may be less than nothing.
FIELD_KINDS: dict[str, Kind] = {
    "schema": COUNT,
    **dict.fromkeys(("strategy", "loader", "model", "state_digest", "size", "layout"), _TEXT),
    # Of the key of a benchmark.
    "dtype": TEXT,
    **dict.fromkeys(("cast", "device", "stand_in"), _TEXT),
    "planned": _FLAG,
    "cache": TEXT,
    "ownership": _TEXT,
    **dict.fromkeys(("state_bytes", "largest_tensor_bytes", "largest_file_bytes", "tensors"), _NUMBER),
    **dict.fromkeys(("checkpoint_bytes", "missing_bytes", "largest_saved_bytes"), _NUMBER),
    **dict.fromkeys(("converted_bytes", "converted_to_bytes", "mapped_bytes"), _NUMBER),
    **dict.fromkeys(("largest_converted_to_bytes", "largest_conversion_bytes", "conversion_slot_bytes"), _NUMBER),
    **dict.fromkeys(("build_peak_bytes", "built_private_bytes", "built_file_bytes", "beside_bytes"), _SIGNED),
    "first_use": _TEXT,
    **dict.fromkeys(("device_requested_peak_bytes", "device_allocated_peak_bytes"), _NUMBER),
    **dict.fromkeys(("device_reserved_peak_bytes", "device_peak_ratio", "device_bound_ratio"), _NUMBER),
    "device_driver_peak_bytes": _SIGNED,
    **dict.fromkeys(("host_private_peak_bytes", "host_file_peak_bytes", "host_pinned_peak_bytes"), _NUMBER),
    **dict.fromkeys(("host_total_peak_bytes", "host_peak_ratio", "host_bound_ratio", "host_file_bound_ratio"), _NUMBER),
    # No load takes no time: the logarithm of times is looked at, and of the speed of the machine.
    **dict.fromkeys(("load_seconds", "first_logits_seconds"), _POSITIVE),
    **dict.fromkeys(("forward_seconds", "bytes_per_second"), _NUMBER),
    "limit": _TEXT,
    "limit_bytes_per_second": _POSITIVE,
    **dict.fromkeys(("limit_fraction", "minor_faults", "major_faults"), _NUMBER),
    **dict.fromkeys(("device_budget_bytes", "host_budget_bytes"), _NUMBER),
    "fits": _FLAG,
    "fate": _TEXT,
    **dict.fromkeys(("smallest_device_bytes", "smallest_host_bytes", "smallest_tolerance_bytes"), _NUMBER),
    **dict.fromkeys(("retained_bytes", "retained_again_bytes", "read_bytes"), _SIGNED),
    "ranks": nullable(COUNT),
    "parallelism": _TEXT,
    **dict.fromkeys(("share_bytes", "node_private_peak_bytes", "node_file_peak_bytes"), _NUMBER),
    "per_rank": nullable(each(fields({}, rest=PLAIN))),
    "peer": nullable(_PEER),
    "alive_at_peak": nullable(fields({}, rest=each(_HELD))),
    "timeline": nullable(
        fields(
            {"moments": fields({}, rest=NUMBER)},
            dict.fromkeys(("device_requested_bytes", "host_private_bytes"), _SERIES)
            | dict.fromkeys(("host_file_bytes", "host_pinned_bytes"), _SERIES),
        )
    ),
}

FIELDS = tuple(FIELD_KINDS)

# What later runs look at, beside the figures: what tells benchmarks apart, and what is said of their changes.
LASTING = (
    *("schema", "strategy", "loader", "model", "state_digest", "size", "layout", "dtype", "cast", "device", "stand_in"),
    *("planned", "cache", "first_use", "bytes_per_second", "ranks", "parallelism", "peer"),
    *("device_budget_bytes", "host_budget_bytes", "smallest_tolerance_bytes"),
    *(figure.name for figure in (*FIGURES, LIMIT)),
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
