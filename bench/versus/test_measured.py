import json
from pathlib import Path
from typing import Any

import pytest

from bench.record.record import Record
from bench.versus.measured import PEAKS, Benchmark, read_run

FULLNAME = "bench/test_load_time.py::test_load_time[streamed-small-cpu]"


def written(folder: Path, *benchmarks: tuple[str, dict[str, Any]]) -> Path:
    (folder / "run.json").write_text(
        json.dumps({"benchmarks": [{"fullname": name, "extra_info": extra} for name, extra in benchmarks]})
    )
    return folder / "run.json"


def test_what_was_measured_is_read_and_what_was_not_is_not_there(tmp_path: Path) -> None:
    record = Record().as_json() | {"dtype": "float32", "cache": "cold", "planned": False, "load_seconds": 0.5}
    peaks = dict.fromkeys(PEAKS, 7) | {"host_pinned_peak_bytes": 0}
    assert read_run(written(tmp_path, (FULLNAME, record), ("metered", record | {"load_seconds": None} | peaks))) == {
        Benchmark(FULLNAME, "float32", "cold", planned=False): {"load_seconds": 0.5},
        Benchmark("metered", "float32", "cold", planned=False): peaks,
    }


def test_the_records_of_an_older_commit_lack_fields(tmp_path: Path) -> None:
    [(benchmark, figures)] = read_run(written(tmp_path, (FULLNAME, {"load_seconds": 0.5}))).items()
    assert (benchmark, figures) == (Benchmark(FULLNAME), {"load_seconds": 0.5})


def test_benchmarks_that_differ_in_what_is_loaded_are_two(tmp_path: Path) -> None:
    run = read_run(written(tmp_path, *((FULLNAME, {"dtype": dtype}) for dtype in ("float32", "float16"))))
    assert [benchmark.dtype for benchmark in run] == ["float32", "float16"]


@pytest.mark.parametrize("text", ["", "{}", '{"benchmarks": [1]}', '{"benchmarks": [{"fullname": "x"}]}'])
def test_a_file_that_is_no_record_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ValueError, match=r"\Arun\.json is no record of a run: [^\n]*\Z"):
        read_run(tmp_path / "run.json")


def test_names_are_short_but_never_empty() -> None:
    assert Benchmark(FULLNAME).name == "streamed-small-cpu"
    assert Benchmark("bench/test_x.py::test_x").name == "test_x"
