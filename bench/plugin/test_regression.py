"""Tests of figures that grew, vanished or were accepted, in runs of pytest."""

from typing import Any

import pytest

from bench.record.field import title
from bench.selftest.small_suite import MACHINE, Suite, lines, load

# Of runs in which nothing is measured.
pytestmark = pytest.mark.filterwarnings("ignore:Not saving anything")


@pytest.mark.parametrize(("factor", "fails"), [(1.009, False), (1.01, False), (1.011, True)])
@pytest.mark.parametrize("figure", ["device_requested_peak_bytes", "host_private_peak_bytes", "state_bytes"])
def test_a_peak_may_grow_by_one_percent_and_no_more(
    suite: Suite, pytester: pytest.Pytester, figure: str, factor: float, fails: bool
) -> None:
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
        job_page = (pytester.path / "summary.md").read_text()
        assert f"| GREW | one | {title(figure)} | 0.931 GiB | 0.942 GiB | +1.1 % | 0001 |" in job_page
        assert "- alive in one: 0.00 MiB in 1 tensor: r.py:3 x = y" in job_page


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
    accepting = suite(grown, "--accept-regressions")
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
    assert lines(result, "ERROR: --require-comparison: some benchmarks could not be compared")
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
    accepting = suite(renamed, "--accept-regressions")
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
        f"ERROR: --benchmark-compare: 0002 did not pass ({outcome}); name one that passed, such as 0001"
    ]


def test_a_named_run_is_what_bytes_are_held_against(suite: Suite) -> None:
    for count in (10**9, 1_100_000_000):
        suite({"one": load(device_requested_peak_bytes=count)})
    now = {"one": load(device_requested_peak_bytes=1_105_000_000)}
    assert suite(now, "--benchmark-compare=0002").ret == pytest.ExitCode.OK
    assert suite(now, "--benchmark-compare=0001").ret == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize("figure", ["device_requested_peak_bytes", "host_private_peak_bytes", "load_seconds"])
def test_a_figure_that_is_no_longer_measured_is_missed(suite: Suite, figure: str) -> None:
    suite({"one": load()})
    result = suite({"one": load(**{figure: None})}, "--benchmark-compare")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert len(lines(result, "GONE  one")) == 1
    assert suite({"one": load(**{figure: None})}, "--accept-regressions").ret == pytest.ExitCode.OK
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
    result = suite(loads, "--accept-regressions", broken=["two"])
    assert lines(result, "NOT ACCEPTED: 1 figure is worse, but this run did not pass, or is not recorded")
    assert suite(loads, "--benchmark-compare").ret == pytest.ExitCode.TESTS_FAILED
