"""A run to make pages of: small, with a strategy of a hostile name, one that failed, and a history."""

import json
from pathlib import Path
from typing import Any

from bench.conformance.properties import PROPERTIES
from bench.history.runs import Run, read_run
from bench.record.record import Record
from bench.selftest.small_suite import STATS

HOSTILE = "<script>alert('x')</script>"
S, L = 1_000_000_000, 200_000_000

# seconds until first logits, and peaks as multiples of S: on the device, and private on the host
LOADS = {
    "baseline": (3.0, 2.0, 1.0),
    "streamed": (0.5, 1.0, 0.1),
    HOSTILE: (1.5, 1.0, 0.05),
    "per_tensor": (2.0, 1.2, 0.2),
}

MACHINE = {"torch": "2.13.0", "python_version": "3.11.7", "gpus": [], "cores": 2, "cpu": {"brand_raw": "A & B <i>"}}

WRONG = {"outcome": "WRONG", "example": "Model(<b>)", "why": "a.weight differs: <b>bold</b>", "checks": ["values"]}
REFUSED = {"outcome": "refused", "example": "Model()", "why": "no <a>"}
CELL = {"outcome": "passed", "examples": 5, "example": "", "why": "", "checks": [], "named": True}
# As many as there are: a page has to have room for them.
CELLS = [
    CELL | {"strategy": strategy, "property": name} | special.get(name, {})
    for strategy, special in (("streamed", {"views": WRONG}), (HOSTILE, {"plain": REFUSED}))
    for name in PROPERTIES
]


# A figure that became worse, as a recorded run has it.
CHANGE = {
    "key": ["t.py::t[streamed-small-cpu]", "float32", "warm", False],
    "figure": "load_seconds",
    "before": 1.0,
    "after": 1.5,
    "replaces": "0007_run",
}


def series(*points: tuple[float, int]) -> dict[str, list[Any]]:
    return {"seconds": [seconds for seconds, _ in points], "bytes": [count for _, count in points]}


def _known(strategy: str, device: str) -> dict[str, Any]:
    """A record before anything is measured."""
    return Record().as_json() | {
        "strategy": strategy,
        "size": "small",
        "device": device,
        "dtype": "float32",
        "cache": "warm",
        "planned": False,
        "ownership": "owned",
        "state_bytes": S,
        "largest_tensor_bytes": L,
        "limit": "memory",
    }


def metered(strategy: str) -> dict[str, Any]:
    """The record of a load whose memory was measured."""
    seconds, device, private = LOADS[strategy]
    device_bytes, private_bytes = int(device * S), int(private * S)
    held = [
        {"bytes": S, "tensors": 148, "line": "recipe.py:3", "code": "model = build() & <i>"},
        {"bytes": device_bytes - S, "tensors": 1, "line": "recipe.py:7", "code": "p.copy_(q)"},
    ]
    return _known(strategy, "sim") | {
        "device_requested_peak_bytes": device_bytes,
        "device_allocated_peak_bytes": device_bytes,
        "device_reserved_peak_bytes": device_bytes,
        "device_peak_ratio": device,
        "device_bound_ratio": device,
        "host_private_peak_bytes": private_bytes,
        "host_peak_ratio": private,
        "host_bound_ratio": private,
        "host_file_peak_bytes": 0,
        "host_total_peak_bytes": private_bytes,
        "host_file_bound_ratio": 0.0,
        "alive_at_peak": {"device_requested_peak_bytes": [one for one in held if one["bytes"]]},
        "timeline": {
            "moments": {"build": 0.2 * seconds, "load": 0.7 * seconds, "copy": seconds},
            "device_requested_bytes": series((0.0, 0), (0.2 * seconds, S), (0.7 * seconds, device_bytes), (seconds, S)),
            "host_private_bytes": series((0.0, 0), (0.5 * seconds, private_bytes), (seconds, 0)),
            "host_file_bytes": series((0.0, 0)),
            "host_pinned_bytes": None,
        },
    }


def timed(strategy: str, slower: float = 1.0) -> dict[str, Any]:
    """The record of a timed load."""
    seconds = slower * LOADS[strategy][0]
    times = {"load_seconds": 0.9 * seconds, "first_logits_seconds": seconds, "bytes_per_second": S / seconds}
    return _known(strategy, "cpu") | {
        **times,
        "minor_faults": 123_456,
        "major_faults": 0,
        "limit_bytes_per_second": 1e10,
        "limit_fraction": S / seconds / 1e10,
    }


def content(number: int, slower: float = 1.0, **more: Any) -> dict[str, Any]:
    """Return the content of a run's file, in which the load of `per_tensor` failed."""
    benchmarks = [
        {"fullname": f"bench/{test}.py::{test}[{name}-small-{record['device']}]", "extra_info": record, "stats": STATS}
        for name in LOADS
        if name != "per_tensor"
        for test, record in (("test_peak_memory", metered(name)), ("test_load_time", timed(name, slower)))
    ]
    problem = {"strategy": "per_tensor", "size": "small", "record": metered("per_tensor")}
    problem["verdict"] = "<b>too much</b>: 1.30x > 1.20x"
    return {
        "benchmarks": benchmarks,
        "machine_info": MACHINE | {"torch": f"2.{number}.0"},
        "commit_info": {"id": f"{number:07}<c>ffee"},
        "datetime": f"2026-11-{number:02}T03:00:00",
        "problems": [problem],
        "conformance": CELLS,
        "history": {"schema": 1, "outcome": "failed", "failed": ["a::b"], "changes": [], "accepted": False},
    } | more


class Runs:
    """Recorded runs in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, number: int, slower: float = 1.0, **more: Any) -> Path:
        file = self.folder / f"failed-{number:04}_run.json"
        file.write_text(json.dumps(content(number, slower, **more)), encoding="utf-8")
        return file

    def read(self) -> list[Run]:
        return [read_run(file) for file in sorted(self.folder.glob("*.json"))]
