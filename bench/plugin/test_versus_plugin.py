"""Tests of `--versus` in a run of pytest, with made-up sides."""

import subprocess
from pathlib import Path

import pytest

from bench.plugin.versus_plugin import forwarded
from bench.selftest.documents.markdown import documented_options

CONFTEST = """
import pytest

import bench.plugin.versus_plugin as session
from bench.plugin.option import add_options
from bench.plugin.options import OPTIONS, parsed
from bench.report.versus_section import versus_lines
from bench.versus.interleaved_runs import InterleavedRuns, RunFailed
from bench.versus.run_figures import BenchmarkKey
from bench.plugin.versus_plugin import Versus


def pytest_addoption(parser):
    add_options(parser, OPTIONS)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    try:
        config.versus = Versus(config, parsed(config.option), config.rootpath / "checkpoints")
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    config.pluginmanager.register(config.versus)


def measure_in_turn(one, other, options, rounds, folder, say):
    name = options[-1]
    if name == "broken":
        raise RunFailed("main: its run failed")
    seconds = {"slower": 0.3, "same": 0.2, "faster": 0.1}[name]
    run = lambda seconds, number: {BenchmarkKey("test[x]"): {"load_seconds": seconds + number / 10_000}}
    return InterleavedRuns(one, other, tuple((run(0.2, number), run(seconds, number)) for number in range(rounds)))


session.prepare = lambda side, root, cache, checkouts, say: side
session.require_uv = lambda: None
session.measure_in_turn = measure_in_turn


def pytest_terminal_summary(terminalreporter, config):
    for line in config.versus.complaints:
        terminalreporter.write_line(f"ERROR: {line}")
    if config.versus.result:
        for line in versus_lines(config.versus.result, 120):
            terminalreporter.write_line(line)
"""


@pytest.fixture
def versus(pytester: pytest.Pytester) -> pytest.Pytester:
    """A repository of one commit, `main`, whose only test fails if anyone runs it."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_run="def test_run(): assert False")
    for command in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-q", "-m", "first")):
        identity = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
        subprocess.run(("git", *identity, *command), cwd=pytester.path, check=True)
    return pytester


@pytest.mark.parametrize(("outcome", "code"), [("slower", 1), ("same", 0), ("faster", 0), ("broken", 1)])
def test_nothing_is_run_here_and_what_is_slower_fails(versus: pytest.Pytester, outcome: str, code: int) -> None:
    result = versus.runpytest_inprocess("--versus", "main", outcome)
    assert result.ret == code
    assert "collected" not in result.stdout.str()
    if outcome == "broken":
        result.stdout.fnmatch_lines("ERROR: --versus: main: its run failed")
    else:
        [row] = [line for line in result.outlines if line.startswith("x ")]
        assert row.split()[-1] == outcome


def test_the_documented_commands_compare_a_version_and_a_commit(versus: pytest.Pytester) -> None:
    for options in (
        documented_options("pytest bench --versus 'torch==2.12.*'"),
        documented_options("pytest bench --versus 'torch==2.12.*..torch==2.13.*'"),
        documented_options("pytest bench --versus main"),
    ):
        result = versus.runpytest_inprocess(*options, "same")
        assert result.ret == 0
        reference, _, candidate = options[1].partition("..")
        assert f"Beside {reference}, {candidate or 'here'} is the same" in result.stdout.str()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("main", "--benchmark-json=x.json"), "--benchmark-json is for one run, and --versus makes many"),
        (("nonsense",), "--versus: 'nonsense' is neither a commit of this repository nor a requirement with a version"),
    ],
)
def test_what_cannot_be_compared_is_one_line(versus: pytest.Pytester, options: tuple[str, ...], message: str) -> None:
    result = versus.runpytest_inprocess("--versus", *options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    [line] = [line for line in result.errlines if line]
    assert line.startswith(f"ERROR: {message}")


def test_both_sides_would_begin_again(versus: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "--versus main")
    result = versus.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "--versus: PYTEST_ADDOPTS passes it on to both sides" in result.stderr.str()


def test_both_sides_get_what_the_user_wrote_less_what_is_for_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "test_load_time.py").touch()
    monkeypatch.chdir(tmp_path / "bench")
    given = ["test_load_time.py::test_load_time", str(tmp_path / "bench"), "--sizes", "xl", "-k", "streamed or limit"]
    ours = ["--versus", "main", "--versus-rounds=8", "--checkpoint-dir", "there", "--time-compare-fail=2%"]
    there = tmp_path / "checkpoints"
    assert forwarded([*ours, *given], tmp_path, there) == [
        *("--checkpoint-dir", str(there)),
        *("bench/test_load_time.py::test_load_time", "bench", "--sizes", "xl", "-k", "streamed or limit"),
    ]


def test_what_is_the_users_is_found_by_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative to the folder in which the user is, and in no checkout."""
    (tmp_path / "mine.py").touch()
    (tmp_path / "weights.pt").touch()
    monkeypatch.chdir(tmp_path)
    given = ["--model", "mine.py:make", "--checkpoint=weights.pt", "--loader", "package.module:load"]
    assert forwarded(given, tmp_path / "root", tmp_path)[2:] == [
        *("--model", f"{tmp_path}/mine.py:make", "--checkpoint", f"{tmp_path}/weights.pt"),
        *("--loader", "package.module:load"),
    ]
