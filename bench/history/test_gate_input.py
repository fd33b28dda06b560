"""Runs that are bad input, or meet files that are."""

import json
from typing import Any

import pytest

from bench.history.run_files import read_runs
from bench.selftest.small_suite import Suite, lines, load

# Of runs in which nothing is measured.
pytestmark = pytest.mark.filterwarnings("ignore:Not saving anything")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--benchmark-compare=no/such/run.json",), "--benchmark-compare: no/such/run.json is not recorded; name one"),
        (("--benchmark-compare=",), "--benchmark-compare=: no run is named; name one, or leave out the ="),
        (
            ("--benchmark-compare=0009",),
            "--benchmark-compare: 0009 is not recorded; name one that passed, such as 0001",
        ),
    ],
)
def test_bad_input_is_one_line(suite: Suite, options: tuple[str, ...], message: str) -> None:
    suite({"one": load()})
    result = suite({"one": load()}, *options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    [line] = [line for line in result.errlines if line]
    assert line.startswith(f"ERROR: {message}")
    assert suite.names == ["0001_run"]


def test_what_is_no_run_is_named_and_passed_over(suite: Suite, pytester: pytest.Pytester) -> None:
    suite({"one": load()})
    [recorded] = suite.files
    text = recorded.read_text()
    (recorded.parent / "0002_torn.json").write_text(text[: len(text) // 2])
    (recorded.parent / "0003_foreign.json").write_text('{"benchmarks": [{"fullname": "x", "extra_info": {}}]}')
    (recorded.parent / "0004_other.json").write_text('["no run"]')
    (recorded.parent / "0005_late.json").write_text(text.replace('"schema": 1', '"schema": 2'))
    result = suite({"one": load()}, "--benchmark-compare")
    assert result.ret == pytest.ExitCode.OK
    told = [line.partition("/")[2] for line in lines(result, "PASSED OVER: ")]
    assert [line.partition(" ")[0] for line in told] == [
        *("0002_torn.json", "0003_foreign.json", "0004_other.json", "0005_late.json")
    ]
    assert told[0].startswith("0002_torn.json cannot be read: ")
    assert told[1].startswith("0003_foreign.json is no run of this suite: no benchmark has a record")
    assert told[2].startswith("0004_other.json is no run of this suite: ")
    assert told[3].startswith("0005_late.json is of a later version of this suite: update the suite")
    assert "1 benchmark compared: nothing grew" in result.outlines
    for number in ("0002", "0003"):
        refused = suite({"one": load()}, f"--benchmark-compare={number}")
        assert refused.ret == pytest.ExitCode.USAGE_ERROR
        assert len([line for line in refused.errlines if line]) == 1


def test_benchmark_compare_fail_keeps_its_meaning_and_ends_without_a_traceback(suite: Suite) -> None:
    suite({"one": load()})
    [recorded] = suite.files
    run = json.loads(recorded.read_text())
    run["benchmarks"][0]["stats"] |= {"min": 1e-12, "median": 1e-12}
    recorded.write_text(json.dumps(run))
    result = suite({"one": load()}, "--benchmark-compare", "--benchmark-compare-fail=min:5%")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert lines(result, "ERROR: test_load[one]: Field 'min' has failed PercentageRegressionCheck")
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    assert suite.names == ["0001_run", "failed-0002_run"]


def test_the_json_that_was_asked_for_is_there_as_a_whole(suite: Suite, pytester: pytest.Pytester) -> None:
    suite({"one": load()}, "--benchmark-json=asked.json")
    assert json.loads((pytester.path / "asked.json").read_text())["history"]["outcome"] == "passed"
    assert not list(pytester.path.glob("*.unfinished"))
    lost = suite({"one": load()}, "--benchmark-json=nowhere/asked.json")
    assert lost.ret == pytest.ExitCode.TESTS_FAILED
    assert lines(lost, "ERROR: --benchmark-json: nowhere/asked.json cannot be written: No such file or directory")
    assert suite.names == ["0001_run", "0002_run"]


def test_a_benchmark_of_somebody_elses_is_left_to_pytest_benchmark(suite: Suite, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_other="def test_other(benchmark): benchmark(lambda: 1)")
    for _ in range(2):
        result = suite({"one": load()}, "--benchmark-compare")
        assert result.ret == pytest.ExitCode.OK
    assert len([line for line in result.outlines if line.startswith("test_other (")]) == 2


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("machine_info",), None),
        (("commit_info", "id"), None),
        (("datetime",), None),
        (("history", "outcome"), None),
        (("history", "changes"), [{}]),
        (("benchmarks", 0, "fullname"), None),
        (("benchmarks", 0, "stats"), None),
        (("benchmarks", 0, "stats", "min"), "1"),
        (("benchmarks", 0, "extra_info", "load_seconds"), "0.2"),
        (("benchmarks", 0, "extra_info", "load_seconds"), -1.0),
        (("benchmarks", 0, "extra_info", "load_seconds"), 0),
        (("benchmarks", 0, "extra_info", "limit_bytes_per_second"), 0.0),
        (("benchmarks", 0, "extra_info", "limit_bytes_per_second"), "fast"),
        (("benchmarks", 0, "extra_info", "host_private_peak_bytes"), float("nan")),
        (("benchmarks", 0, "extra_info", "device_requested_peak_bytes"), True),
    ],
    ids=str,
)
def test_a_file_that_somebody_edited_is_passed_over(suite: Suite, place: tuple[Any, ...], value: Any) -> None:
    suite({"one": load()})
    [recorded] = suite.files
    data = json.loads(recorded.read_text())
    inner = data
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    recorded.with_name("0002_edited.json").write_text(json.dumps(data))
    runs, passed_over = read_runs(recorded.parent)
    assert [run.file for run in runs] == [recorded]
    assert len(passed_over) == 1
