"""The command `weight-loading-bench`, as far as it needs no installed package: see `bench/selftest/runs`."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.plugin import command
from bench.plugin.command import SETTINGS, STARTED_AGAIN, require_own_settings, with_own_settings
from bench.plugin.option import command_help
from bench.plugin.options import HEADINGS, OPTIONS
from bench.plugin.preconditions import require_benchmarks, require_own_tests
from model import installation
from model.installation import PACKAGE, ROOT, pip_install, started


def config_of(arguments: list[str], *, inipath: Path | None = SETTINGS, source: str = "ARGS", **options: Any) -> Any:
    names = ("model", "loader", "plan", "sharded", "device_memory", "host_memory", "history", "versus")
    return SimpleNamespace(
        option=SimpleNamespace(**{name: options.get(name) for name in names}),
        args_source=pytest.Config.ArgsSource[source],
        invocation_params=SimpleNamespace(args=arguments),
        inipath=inipath,
    )


def test_a_path_after_an_option_is_not_taken_for_one_of_tests() -> None:
    given = ["there/bench", "--model", "my-llama", "--strategies", "all", "--report=x", "--checkpoint"]
    assert with_own_settings(given) == [
        *("-c", str(SETTINGS), "--rootdir", str(ROOT)),
        *("there/bench", "--model=my-llama", "--strategies", "all", "--report=x", "--checkpoint"),
    ]


@pytest.mark.parametrize(
    ("arguments", "stray"),
    [
        ("my-llama", "my-llama"),
        ("--model x my-llama --plan", "my-llama"),
        ("--model=x tests", "tests"),
        ("--model x -k a -n 2 --benchmark-compare 0001 --plan", None),
        ("", None),
    ],
)
def test_a_word_that_is_no_option_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: str, stray: str | None
) -> None:
    monkeypatch.setattr(pytest, "console_main", lambda: 0)
    monkeypatch.setattr(sys, "argv", ["weight-loading-bench", *arguments.split()])
    assert command.main() == (4 if stray else 0)
    said = f"ERROR: {stray} is no option; write --model {stray} if it is your model\n" if stray else ""
    assert capsys.readouterr().err == said


def test_tests_outside_the_suite_are_refused(tmp_path: Path) -> None:
    inside = ["bench", str(ROOT / "bench" / "test_budget.py::test_budget[a/b]")]
    config: Any = SimpleNamespace(args=inside, rootpath=ROOT, invocation_params=SimpleNamespace(dir=ROOT))
    require_own_tests(config)
    config.args = ["bench", str(tmp_path)]
    with pytest.raises(
        pytest.UsageError, match=r"is no option, and no test of this suite; is it the value of --model\?$"
    ):
        require_own_tests(config)


def test_every_option_with_a_path_is_known_as_one() -> None:
    paths = {one.name for one in OPTIONS if one.metavar in ("PATH", "FOLDER", "MODEL", "FUNCTION", "PLAN")}
    assert paths <= set(command._OF_PATHS)


def test_pytest_starts_again_where_it_read_the_settings_of_another_project(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *given: started.append(given))
    monkeypatch.delenv(STARTED_AGAIN, raising=False)
    require_own_settings(config_of(["there/bench"]))
    assert started == []
    require_own_settings(config_of(["there/bench"], inipath=tmp_path / "pyproject.toml"))
    [(program, words, environment)] = started
    assert program == sys.executable
    assert words[1:] == ["-P", "-m", "pytest", *with_own_settings(["there/bench"])]
    monkeypatch.setenv(STARTED_AGAIN, environment[STARTED_AGAIN])
    with pytest.raises(pytest.UsageError, match=r"^pytest reads the settings in .*; leave out -c and --rootdir$"):
        require_own_settings(config_of(["there/bench"], inipath=None))


def test_pytest_alone_says_that_the_benchmarks_want_bench() -> None:
    words = ["--model", "my-llama", "--plan"]
    with pytest.raises(
        pytest.UsageError, match=r"^--model is for .*; add bench: pytest bench --model " r"my-llama --plan$"
    ):
        require_benchmarks(config_of(words, source="TESTPATHS", model="my-llama", plan=True))
    require_benchmarks(config_of(["bench", *words], model="my-llama", plan=True))
    require_benchmarks(config_of(["--sizes", "tiny"], source="TESTPATHS"))


def test_help_has_all_options_under_headings_and_names_those_of_pytest() -> None:
    text = command_help("weight-loading-bench", OPTIONS)
    assert text.startswith("usage: weight-loading-bench --model FOLDER [OPTION ...]\n")
    places = [text.index(f"weight loading: {heading}:") for heading in HEADINGS.values()]
    assert places == sorted(places)
    assert all(f"  {one.name}" in text for one in OPTIONS)
    assert "--benchmark-compare" in text


def test_what_a_user_types_follows_from_the_folder_and_the_installation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    assert (started(ROOT), pip_install("report")) == (("pytest", "bench"), "pip install '.[report]'")
    monkeypatch.chdir(ROOT / "model")
    assert started(ROOT) == ("pytest", "../bench")
    assert pip_install("report") == "pip install 'weight-loading-bench[report]'"
    monkeypatch.chdir(tmp_path)
    assert Path(started(ROOT)[1]).resolve() == ROOT / "bench"
    monkeypatch.setattr(installation, "ROOT", tmp_path / PACKAGE)
    assert started(ROOT) == ("weight-loading-bench",)
    assert pip_install("report") == "pip install 'weight-loading-bench[report]'"
