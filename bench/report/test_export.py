import json
from pathlib import Path
from typing import Any

import pytest

from bench.record.record import Record
from bench.report.export import export


def benchmark(test: str, **record: Any) -> dict[str, Any]:
    return {
        "fullname": f"bench/{test}.py::{test}[streamed-small-cpu]",
        "extra_info": Record().as_json() | {"dtype": "float32", "cache": "cold", "planned": False} | record,
        "stats": {"min": 0.2, "max": 0.4},
    }


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def test_both_dashboards_get_every_figure_and_nothing_that_was_not_measured(tmp_path: Path) -> None:
    timed = benchmark("test_load_time", load_seconds=0.25, first_logits_seconds=0.3, state_bytes=700)
    metered = benchmark("test_peak_memory", device_requested_peak_bytes=800, host_pinned_peak_bytes=0, state_bytes=700)
    export([timed, metered], "torch 2.13.0", tmp_path / "new")
    points = read(tmp_path / "new", "github-action-benchmark.json")
    assert points == [
        {"name": f"streamed-small-cpu cold: {name}", "unit": unit, "value": value, "extra": "torch 2.13.0"}
        for name, unit, value in [
            ("load", "s", 0.25),
            ("first logits", "s", 0.3),
            ("device requested peak", "bytes", 800),
            ("host pinned peak", "bytes", 0),
        ]
    ]
    metrics = read(tmp_path / "new", "bencher.json")
    assert metrics == {
        "streamed-small-cpu cold": {
            "latency": {
                "value": pytest.approx(3e8),
                "lower_value": pytest.approx(2e8),
                "upper_value": pytest.approx(4e8),
            },
            "load-seconds": {"value": 0.25},
            "first-logits-seconds": {"value": 0.3},
            "device-requested-peak-bytes": {"value": 800},
            "host-pinned-peak-bytes": {"value": 0},
        }
    }
    assert len({point["name"] for point in points}) == len(points)


def test_a_stand_in_for_a_gpu_is_a_series_of_its_own_without_times(tmp_path: Path) -> None:
    metered = benchmark("test_peak_memory", device_requested_peak_bytes=800, stand_in="80 GiB")
    export([benchmark("test_load_time", stand_in="80 GiB"), metered], "stand-in for a GPU (80 GiB)", tmp_path)
    name = "streamed-small-cpu cold on a stand-in"
    assert read(tmp_path, "bencher.json") == {name: {"device-requested-peak-bytes": {"value": 800}}}
    [point] = read(tmp_path, "github-action-benchmark.json")
    assert (point["name"], point["unit"]) == (f"{name}: device requested peak", "bytes")
    assert point["extra"] == "stand-in for a GPU (80 GiB)"


def test_two_models_of_one_name_are_two_series(tmp_path: Path) -> None:
    files = ("one.py:small", "other.py:small")
    export([benchmark("test_load_time", load_seconds=1.0, model=one, layout="torch") for one in files], "", tmp_path)
    assert list(read(tmp_path, "bencher.json")) == [f"streamed-small-cpu cold of {one}" for one in files]
