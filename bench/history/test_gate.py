"""Runs of pytest held against history: what they measure is written in a file, so that nothing but the gate varies."""

import json
import random
from collections.abc import Callable
from math import exp
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.storage.file import FileStorage

from bench.history.change_points import change_points
from bench.history.record import blank_record
from bench.history.spread import WINDOW
from bench.history.storage import Storage

# The suite in small: benchmarks that measure what `figures.json` says, on the machine that it says.
CONFTEST = """
import json
from pathlib import Path

import pytest

from bench.cases.options import add_options
from bench.history.gate import Gate, timed
from bench.history.options import OPTIONS, history_options
from bench.report.comparison import comparison_lines, comparison_markdown, comparison_title, quiet_line

WORLD = json.loads(Path(__file__).with_name("figures.json").read_text())


def pytest_addoption(parser):
    add_options(parser.getgroup("weight loading"), OPTIONS)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    config.addinivalue_line("markers", "slow: as the suite has markers of its own")
    config.option.benchmark_autosave = config.option.benchmark_autosave or "run"
    config.option.benchmark_storage = f"file://{config.rootpath / 'results'}"
    try:
        config.gate = Gate(config, history_options(config.option), lambda record: record["size"] == "tiny")
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    config.pluginmanager.register(config.gate)


def pytest_benchmark_generate_machine_info():
    return WORLD["machine"]


def pytest_benchmark_generate_commit_info():
    return {"id": "c0ffee", "time": None, "dirty": False}


@pytest.hookimpl(tryfirst=True)
def pytest_benchmark_group_stats(benchmarks):
    benchmarks[:] = [bench for bench in benchmarks if timed(bench)]


def pytest_terminal_summary(terminalreporter, config):
    gate = config.gate
    if gate.shown:
        terminalreporter.section(comparison_title(gate.shown))
        for line in comparison_lines(gate.shown, gate.recorded, 120):
            terminalreporter.write_line(line)
        Path("summary.md").write_text(comparison_markdown(gate.shown, gate.recorded))
    elif gate.comparison and (line := quiet_line(gate.comparison)):
        terminalreporter.write_line(line)
    for line in gate.complaints:
        terminalreporter.write_line(f"ERROR: {line}")
"""

BENCHMARKS = """
import os
import signal
import time

import pytest

from bench.history.gate import Grown
from conftest import WORLD


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLD["loads"])
def test_load(name, benchmark, growth):
    benchmark.extra_info = record = WORLD["loads"][name]
    if name in WORLD.get("stopped", ()):
        benchmark.pedantic(lambda: os.kill(os.getpid(), signal.SIGINT))
    benchmark.pedantic(time.sleep, args=(0,), rounds=2)
    if grown := growth(record):
        record["alive_at_peak"] = {f: [dict(bytes=7, tensors=1, line="r.py:3", code="x = y")] for f in grown}
        raise Grown("; ".join(grown.values()), pytrace=False)
    assert name not in WORLD.get("broken", ())
    if name in WORLD.get("interrupted", ()):
        raise KeyboardInterrupt
"""

MACHINE = {"torch": "2.13.0", "release": "6.1", "memory_bytes": 24 * 10**9}

FIELDS = ("min", "max", "mean", "stddev", "median", "iqr", "ops", "rounds", "iterations")
STATS: dict[str, Any] = dict.fromkeys(FIELDS, 1.0) | {"outliers": "0;0"}

# name of a load -> fields of its record
Loads = dict[str, dict[str, Any]]


def load(**fields: Any) -> dict[str, Any]:
    """The record of a load that takes 1 GB and 200 ms, but for what is said."""
    usual = {
        "strategy": "streamed",
        "size": "tiny",
        "dtype": "float32",
        "cache": "warm",
        "device": "cpu",
        "planned": False,
        "bytes_per_second": 5e9,
        "state_bytes": 10**9,
        "device_requested_peak_bytes": 10**9,
        "host_private_peak_bytes": 10**9,
        "load_seconds": 0.2,
        "first_logits_seconds": 0.25,
    }
    return blank_record() | usual | fields


class Suite:
    """Runs of the small suite in a folder of their own, one after the other."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester
        pytester.makeconftest(CONFTEST)
        pytester.makepyfile(test_loads=BENCHMARKS)

    def __call__(self, loads: Loads, *options: str, machine: dict[str, Any] = MACHINE, **world: Any) -> Any:
        self.write(loads, machine=machine, **world)
        usual = ("-p", "no:cacheprovider", "--benchmark-group-by=func")
        return self._pytester.runpytest_inprocess(*usual, *options, no_reraise_ctrlc=True)

    def write(self, loads: Loads, *, machine: dict[str, Any] = MACHINE, **world: Any) -> None:
        text = json.dumps({"loads": loads, "machine": machine, **world})
        (self._pytester.path / "figures.json").write_text(text)

    @property
    def files(self) -> list[Path]:
        return sorted((self._pytester.path / "results").rglob("*.json"), key=lambda file: file.name[-14:])

    @property
    def names(self) -> list[str]:
        return sorted(file.stem for file in self.files)

    def history(self, name: str) -> dict[str, Any]:
        [file] = [file for file in self.files if file.stem == name]
        return json.loads(file.read_text())["history"]

    def record(self, count: int, loads: Callable[[int], Loads], machine: dict[str, Any] = MACHINE) -> None:
        """Write `count` runs as the suite would have recorded them."""
        folder = self._pytester.path / "results" / "Machine"
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(1, count + 1):
            benchmarks = [
                {"fullname": f"test_loads.py::test_load[{name}]", "extra_info": record, "stats": STATS}
                for name, record in loads(number).items()
            ]
            run = {"machine_info": machine, "commit_info": {"id": "c0ffee"}, "datetime": f"{number:04}"}
            (folder / f"{number:04}_run.json").write_text(json.dumps({"benchmarks": benchmarks, **run}))


@pytest.fixture
def suite(pytester: pytest.Pytester) -> Suite:
    return Suite(pytester)


def lines(result: Any, beginning: str) -> list[str]:
    return [line for line in result.outlines if line.startswith(beginning)]


@pytest.mark.parametrize(("factor", "fails"), [(1.009, False), (1.01, False), (1.011, True)])
@pytest.mark.parametrize("figure", ["device_requested_peak_bytes", "host_private_peak_bytes", "state_bytes"])
def test_a_peak_may_grow_by_one_percent_and_no_more(suite: Suite, figure: str, factor: float, fails: bool) -> None:
    suite({"one": load()})
    result = suite({"one": load(**{figure: int(factor * 10**9)})}, "--benchmark-compare")
    assert result.ret == (pytest.ExitCode.TESTS_FAILED if fails else pytest.ExitCode.OK)
    assert bool(lines(result, "GREW  one")) == fails
    if fails:
        [row] = lines(result, "GREW  one")
        assert row.split()[-3:-1] == ["+1.1", "%"]
        assert row.split()[-1] == "0001"
        assert "    0.00 MiB in 1 tensor: r.py:3 x = y" in result.outlines
        assert suite.names[-1] == "failed-0002_run"


def test_the_threshold_is_the_users(suite: Suite) -> None:
    suite({"one": load()})
    grown = {"one": load(device_requested_peak_bytes=1_050_000_000)}
    for threshold, failed in (("6%", 0), ("off", 0), ("4.9%", 1)):
        assert suite(grown, "--benchmark-compare=0001", f"--memory-compare-fail={threshold}").ret == failed, threshold


def test_a_regression_stays_one_until_it_is_accepted(suite: Suite) -> None:
    grown = {"one": load(device_requested_peak_bytes=1_100_000_000)}
    suite({"one": load()})
    for _ in range(2):
        assert suite(grown, "--benchmark-compare").ret == pytest.ExitCode.TESTS_FAILED
    # Not even a run that compares nothing makes it a baseline.
    assert suite(grown).ret == pytest.ExitCode.OK
    assert suite(grown, "--benchmark-compare").ret == pytest.ExitCode.TESTS_FAILED
    accepting = suite(grown, "--accept")
    assert accepting.ret == pytest.ExitCode.OK
    assert lines(accepting, "ACCEPTED: 1 figure is worse. Later runs are held against this one")
    history = suite.history("0006_run")
    assert (history["outcome"], history["accepted"]) == ("passed", True)
    [change] = history["changes"]
    assert (change["before"], change["after"], change["replaces"]) == (10**9, 1_100_000_000, "0001_run")
    assert change["figure"] == "device_requested_peak_bytes"
    assert suite(grown, "--benchmark-compare").ret == pytest.ExitCode.OK
    assert suite({"one": load(device_requested_peak_bytes=1_120_000_000)}, "--benchmark-compare").ret == 1


def test_growth_in_little_steps_is_found(suite: Suite) -> None:
    failed = [
        suite({"one": load(device_requested_peak_bytes=int(10**9 * 1.004**night))}, "--benchmark-compare").ret
        for night in range(5)
    ]
    assert failed == [0, 0, 0, 1, 1]


def test_a_gain_is_reported_and_held_from_then_on(suite: Suite) -> None:
    suite({"one": load()})
    result = suite({"one": load(device_requested_peak_bytes=900_000_000)}, "--benchmark-compare")
    assert result.ret == pytest.ExitCode.OK
    assert len(lines(result, "shrank  one")) == 1
    assert lines(
        result, "GAIN: 1 figure is better. For later runs to be held against that, it is in 0002_run.json: keep"
    )
    assert suite({"one": load()}, "--benchmark-compare").ret == pytest.ExitCode.TESTS_FAILED


def test_requested_peaks_are_compared_across_machines_and_nothing_else_is(suite: Suite) -> None:
    suite({"one": load()})
    elsewhere = MACHINE | {"torch": "2.14.0", "gpus": ["a GPU"]}
    changed = load(host_private_peak_bytes=2 * 10**9, device_reserved_peak_bytes=2 * 10**9, load_seconds=9.0)
    result = suite({"one": changed}, "--benchmark-compare", machine=elsewhere)
    assert result.ret == pytest.ExitCode.OK
    [line] = lines(result, "NOT COMPARED: ")
    assert line.startswith("NOT COMPARED: times, host bytes and allocator bytes of 1 benchmark: ")
    assert line.endswith("(gpus: None -> ['a GPU']; torch: 2.13.0 -> 2.14.0)")
    assert lines(result, "  both can be measured here, in turn: --versus torch==2.13.0")
    assert suite({"one": changed}, "--require-comparison", machine=MACHINE | {"torch": "3"}).ret == 1
    grown = {"one": load(device_requested_peak_bytes=2 * 10**9)}
    assert suite(grown, "--benchmark-compare", machine=MACHINE | {"torch": "4"}).ret == 1


def test_without_a_baseline_that_is_said_and_fails_where_it_is_required(suite: Suite) -> None:
    result = suite({"one": load()}, "--require-comparison")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert lines(result, "NOT COMPARED: no run that passed is recorded yet")
    assert lines(result, "ERROR: --require-comparison: not everything could be compared")
    assert suite({"one": load()}, "--benchmark-compare", "--benchmark-compare-fail=min:1%").ret == 0
    assert suite.names == ["0002_run", "failed-0001_run"]
    assert suite({"one": load()}, "--require-comparison").ret == 0


def test_a_vanished_benchmark_fails_until_it_is_let_go_and_a_new_one_is_named(suite: Suite) -> None:
    suite({"old": load(layout="torch"), "one": load(layout="safetensors")})
    renamed = {"one": load(layout="safetensors"), "new": load(layout="torch")}
    result = suite(renamed, "--benchmark-compare")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert lines(result, "FAILED test_loads.py::test_load[old] - ")
    assert lines(
        result, "VANISHED: test_load[old], last recorded in 0001; new is new and takes the same bytes: renamed"
    )
    assert lines(result, "NEW: test_load[new]")
    accepting = suite(renamed, "--accept")
    assert accepting.ret == pytest.ExitCode.OK
    assert lines(accepting, "VANISHED: test_load[old], last recorded in 0001, and let go")
    assert suite(renamed, "--benchmark-compare").ret == pytest.ExitCode.OK


@pytest.mark.parametrize(
    ("options", "missed"),
    [
        (("-k", "one"), 0),
        (("-k", "load"), 1),
        (("--deselect", "test_loads.py::test_load[old]"), 0),
        (("test_loads.py::test_load[one]",), 0),
        (("test_loads.py::test_load",), 1),
        (("test_loads.py",), 1),
        (("--benchmark-only",), 1),
        (("--benchmark-skip",), 0),
        (("--ignore=test_loads.py",), 0),
        (("--ignore-glob=*loads*",), 0),
        (("-m", "slow"), 1),
        (("-m", "not slow"), 0),
    ],
)
def test_what_was_deselected_has_not_vanished(suite: Suite, options: tuple[str, ...], missed: int) -> None:
    suite({"old": load(), "one": load(), "large": load(size="large")})
    result = suite({"one": load()}, *options, "--benchmark-compare")
    assert len(lines(result, "VANISHED: test_load[old]")) == missed
    assert (result.ret == pytest.ExitCode.TESTS_FAILED) == bool(missed)
    assert not [line for line in result.outlines if "large" in line]


@pytest.mark.parametrize("world", [{"broken": ["two"]}, {"interrupted": ["two"]}, {"stopped": ["two"]}])
def test_a_run_that_did_not_pass_is_kept_and_never_compared_with(suite: Suite, world: dict[str, Any]) -> None:
    suite({"one": load()})
    grown = {"one": load(device_requested_peak_bytes=1_100_000_000), "two": load()}
    suite(grown, **world)
    [kind] = world
    outcome = "failed" if kind == "broken" else "interrupted"
    assert suite.names == ["0001_run", f"{outcome}-0002_run"]
    history = suite.history(f"{outcome}-0002_run")
    assert history["outcome"] == outcome
    assert history["failed"] == (["test_loads.py::test_load[two]"] if kind == "broken" else [])
    assert suite(grown, "--benchmark-compare").ret == pytest.ExitCode.TESTS_FAILED
    refused = suite(grown, "--benchmark-compare=0002")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    assert refused.errlines[:1] == [
        f"ERROR: --benchmark-compare: 0002 is a run that {outcome}, and none is compared with it; "
        "the last that passed is 0001"
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--benchmark-compare=no/such/run.json",), "--benchmark-compare: no/such/run.json is not recorded; the last"),
        (("--benchmark-compare=",), "--benchmark-compare=: no run is named; name one, or leave out the ="),
        (
            ("--require-comparison", "--memory-compare-fail=off", "--time-compare-fail=off"),
            "--require-comparison: with both thresholds off there is none",
        ),
        (("--benchmark-compare=0009",), "--benchmark-compare: 0009 is not recorded; the last that passed is 0001"),
        (
            ("--memory-compare-fail=1",),
            "--memory-compare-fail: '1' is no percentage; give one such as 1% or 0.5%, or off",
        ),
        (("--time-compare-fail=-3%",), "--time-compare-fail: '-3%' is no percentage; give one such as"),
        (("--benchmark-compare-fail=min:5%",), "--benchmark-compare-fail: there is nothing to compare with; add"),
    ],
)
def test_bad_input_is_one_line(suite: Suite, options: tuple[str, ...], message: str) -> None:
    suite({"one": load()})
    result = suite({"one": load()}, *options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    [line] = [line for line in result.errlines if line]
    assert line.startswith(f"ERROR: {message}")
    assert suite.names == ["0001_run"]


def test_a_named_run_is_what_bytes_are_held_against(suite: Suite) -> None:
    for count in (10**9, 1_100_000_000):
        suite({"one": load(device_requested_peak_bytes=count)})
    now = {"one": load(device_requested_peak_bytes=1_105_000_000)}
    assert suite(now, "--benchmark-compare=0002").ret == pytest.ExitCode.OK
    assert suite(now, "--benchmark-compare=0001").ret == pytest.ExitCode.TESTS_FAILED


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


# Of a quiet machine: nights differ by so much.
NOISE = 0.015


def night(draw: random.Random, slow: dict[str, float]) -> Loads:
    """What seven loads take in a night without a change, or with that of one of them."""
    return {
        name: load(
            load_seconds=0.2 * slow.get(name, 1) * exp(draw.gauss(0, NOISE)),
            first_logits_seconds=0.25 * slow.get(name, 1) * exp(draw.gauss(0, NOISE)),
        )
        for name in ("baseline", "sequential", "meta", "assign", "mmap", "streamed", "per_tensor")
    }


def test_noise_without_change_raises_no_alarm_in_a_hundred_nights(suite: Suite) -> None:
    draw = random.Random(6)
    suite.record(WINDOW, lambda _: night(draw, {}))
    alarms = [suite(night(draw, {}), "--benchmark-compare").ret for _ in range(100)]
    assert sum(alarms) <= 1


def test_a_slow_down_of_ten_percent_is_found(suite: Suite) -> None:
    draw = random.Random(7)
    suite.record(WINDOW, lambda _: night(draw, {}))
    found = 0
    for _ in range(100):
        result = suite(night(draw, {"streamed": 1.1}), "--benchmark-compare")
        found += bool(lines(result, "SLOWER  streamed")) and result.ret == pytest.ExitCode.TESTS_FAILED
    assert found >= 95


def test_a_gain_that_is_lost_again_is_a_slow_down(suite: Suite) -> None:
    draw = random.Random(9)
    suite.record(WINDOW, lambda number: night(draw, {} if number <= 22 else {"streamed": 0.8}))
    result = suite(night(draw, {}), "--benchmark-compare")
    assert len(lines(result, "SLOWER  streamed")) == 2
    assert lines(result, "REGRESSION: 2 figures are worse. It stays one until a run with --accept takes it over")
    assert lines(result, "ERROR: 2 times are longer than in their recent runs, or gone")


def test_a_busy_machine_is_no_regression_and_no_excuse(suite: Suite) -> None:
    draw = random.Random(10)

    def with_limit(slow: float, limit: float) -> Loads:
        loads = night(draw, {"streamed": slow})
        return {n: one | {"limit_bytes_per_second": limit * exp(draw.gauss(0, NOISE))} for n, one in loads.items()}

    suite.record(WINDOW, lambda _: with_limit(1, 1e10))
    busy = suite(with_limit(2, 6e9), "--benchmark-compare")
    assert busy.ret == pytest.ExitCode.OK
    assert len(lines(busy, "busy  streamed")) == 2
    assert lines(busy, "NOT JUDGED: the times of 1 benchmark: beside them the machine's own limit was lower, too")
    assert suite(with_limit(2, 6e9), "--require-comparison").ret == pytest.ExitCode.TESTS_FAILED
    # However long that lasts, it is nothing that later runs are held against.
    for _ in range(4):
        suite(with_limit(2, 6e9), "--benchmark-compare")
    later = suite(with_limit(2, 1e10), "--benchmark-compare")
    assert later.ret == pytest.ExitCode.TESTS_FAILED
    assert len(lines(later, "SLOWER  streamed")) == 2


def test_times_are_not_judged_before_their_spread_is_known(suite: Suite) -> None:
    suite.record(3, lambda number: {"one": load(load_seconds=0.2 + number / 1000)})
    result = suite({"one": load(load_seconds=3.0)}, "--benchmark-compare")
    assert result.ret == pytest.ExitCode.OK
    assert lines(result, "NOT JUDGED: the times of 1 benchmark: it takes 6 runs on this machine to tell their spread")


def test_an_accepted_slow_down_begins_a_new_window(suite: Suite) -> None:
    draw = random.Random(8)
    suite.record(WINDOW, lambda _: night(draw, {}))
    assert suite(night(draw, {"streamed": 1.5}), "--accept").ret == pytest.ExitCode.OK
    result = suite(night(draw, {"streamed": 1.5}), "--benchmark-compare")
    assert result.ret == pytest.ExitCode.OK
    assert lines(result, "NOT JUDGED: the times of 1 benchmark")


def test_a_thousand_runs_are_read_and_compared(suite: Suite) -> None:
    """How long that takes is not for a test: see `results/README.md`."""
    draw = random.Random(11)
    suite.record(1000, lambda number: night(draw, {"mmap": 1.2} if number > 700 else {}))
    result = suite(night(draw, {"mmap": 1.2, "streamed": 1.2}), "--benchmark-compare")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert [line.split()[1] for line in lines(result, "SLOWER")] == ["streamed", "streamed"]
    assert any("compared with 1000 (c0ffee, torch 2.13.0) and 999 before it" in line for line in result.outlines)
    points, series = change_points(Storage(FileStorage(suite.files[0].parents[1], None, "Machine")).runs())
    assert series == 7 * 5
    assert {(point.run.number[:2], point.change.key.title) for point in points} <= {("07", "mmap"), ("06", "mmap")}
    assert len(points) == 2


def test_runs_that_compare_nothing_do_not_make_a_slow_down_usual(suite: Suite) -> None:
    draw = random.Random(12)
    suite.record(WINDOW, lambda _: night(draw, {}) | {"one": load()})
    for _ in range(7):
        plain = suite(night(draw, {"streamed": 1.5}) | {"one": load(host_private_peak_bytes=2 * 10**9)})
        assert plain.ret == pytest.ExitCode.OK
    assert lines(plain, "3 figures are worse than recorded: --benchmark-compare says which")
    loads = night(draw, {"streamed": 1.5}) | {"one": load(host_private_peak_bytes=2 * 10**9)}
    result = suite(loads, "--benchmark-compare")
    assert len(lines(result, "SLOWER  streamed")) == 2
    assert len(lines(result, "GREW    one")) == 1


@pytest.mark.parametrize("figure", ["device_requested_peak_bytes", "host_private_peak_bytes", "load_seconds"])
def test_a_figure_that_is_no_longer_measured_is_missed(suite: Suite, figure: str) -> None:
    suite({"one": load()})
    result = suite({"one": load(**{figure: None})}, "--benchmark-compare")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert len(lines(result, "GONE  one")) == 1
    assert suite({"one": load(**{figure: None})}, "--accept").ret == pytest.ExitCode.OK
    assert suite({"one": load(**{figure: None})}, "--benchmark-compare").ret == pytest.ExitCode.OK


def test_a_benchmark_that_failed_or_was_skipped_is_said_to_be_missing(suite: Suite) -> None:
    suite({"one": load(), "two": load()})
    result = suite({"one": load(), "two": load()}, "--require-comparison", broken=["two"])
    assert lines(result, "NOT COMPARED: skipped or failed: test_load[two]")
    skipped = suite({"one": load()}, "--require-comparison", "--benchmark-skip")
    disabled = suite({"one": load()}, "--require-comparison", "--benchmark-disable")
    assert skipped.ret == disabled.ret == pytest.ExitCode.TESTS_FAILED
    assert lines(disabled, "ERROR: --require-comparison: benchmarks are disabled, so nothing was compared")


def test_nothing_is_accepted_with_a_run_that_fails(suite: Suite) -> None:
    suite({"one": load(), "two": load()})
    loads = {"one": load(device_requested_peak_bytes=2 * 10**9), "two": load()}
    result = suite(loads, "--accept", broken=["two"])
    assert lines(result, "NOT ACCEPTED: 1 figure is worse, but this run did not pass, or is not recorded")
    assert suite(loads, "--benchmark-compare").ret == pytest.ExitCode.TESTS_FAILED


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
    result = suite({"one": load()}, "--benchmark-compare")
    assert result.ret == pytest.ExitCode.OK
    assert len(lines(result, "PASSED OVER: ")) == 1
