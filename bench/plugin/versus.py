"""A pytest plugin that measures two sides in turn where `--versus` asks for it, and nothing else."""

import os
from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from bench.plugin.history_options import HistoryOptions
from bench.plugin.progress import say
from bench.versus.environments import EnvironmentFailed, prepare
from bench.versus.interleaved_runs import RunFailed, measure_in_turn
from bench.versus.sides import parse
from bench.versus.uv import require_uv
from bench.versus.verdict import FEWEST_ROUNDS, SideComparison, compare_sides
from model.run_folder import run_folder

OPTIONS = (
    (
        *("--versus", None, "WHAT"),
        "commit (main, HEAD~3) or pip requirement (torch==2.12.*) to measure in turn with this checkout; A..B: measure "
        "two of them (default: none)",
    ),
    ("--versus-rounds", "6", "NUMBER", "how often --versus runs each side"),
)

# What is for this process, and not for the runs that it starts: with the value that follows, and by itself.
_OURS = (
    *("--versus", "--versus-rounds", "--memory-compare-fail", "--time-compare-fail", "--benchmark-storage"),
    *("--checkpoints", "--benchmark-save"),
)

# What is the user's, and no part of either side.
_USERS = ("--model", "--checkpoint", "--example", "--strategy")


class Versus:
    """`folder` holds the checkpoints that both sides load, and gets their environments."""

    def __init__(self, config: pytest.Config, options: HistoryOptions, folder: Path) -> None:
        """Raises `ValueError` with one line: what cannot be compared, and what could."""
        self._config, self._folder = config, folder
        self._sides = parse(config.option.versus, config.rootpath)
        require_uv()
        self._rounds = _rounds(config.option.versus_rounds)
        one_run = ("benchmark_json", "export", "report")
        if options.compare or options.show or any(getattr(config.option, name) for name in one_run):
            raise ValueError(
                "--versus: leave out what is about one run: comparisons with history, JSON, exports and pages"
            )
        if "--versus" in os.environ.get("PYTEST_ADDOPTS", ""):
            raise ValueError("--versus: both sides would be given it by PYTEST_ADDOPTS; write it on the command line")
        if options.time_threshold is None or options.memory_threshold is None:
            raise ValueError("--versus: a threshold cannot be off here; give a percentage, 0% for any change")
        self._thresholds = options.time_threshold, options.memory_threshold
        self.result: SideComparison | None = None
        self.complaints: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> bool:
        """Collect nothing: both sides collect for themselves."""
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> bool:
        root, tell = self._config.rootpath, partial(say, self._config)
        options = forwarded(self._config.invocation_params.args, root, self._folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix="versus-", dir=run_folder()) as text:
                runs = Path(text)
                one, other = (prepare(side, root, self._folder, runs, tell) for side in self._sides)
                measured = measure_in_turn(one, other, options, self._rounds, runs, tell)
            self.result = compare_sides(measured, *self._thresholds)
        except (EnvironmentFailed, RunFailed, OSError) as error:
            self.complaints.append(f"--versus: {error}")
        return True

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, None, None]:
        if session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            failed = self.complaints or (self.result and self.result.regressed)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED if failed else pytest.ExitCode.OK
        yield


def forwarded(arguments: Sequence[str], root: Path, checkpoints: Path) -> list[str]:
    """What a run of either side is started with: the same, less what is for this process; it starts in its checkout."""
    kept, rest = ["--checkpoints", str(checkpoints.resolve())], iter(arguments)
    for argument in rest:
        name, _, value = argument.partition("=")
        if name in _OURS:
            if not value:
                next(rest, None)
        elif name in _USERS:
            kept += [name, _wherever(value or next(rest, ""))]
        else:
            kept.append(_in_a_checkout(argument, root))
    return kept


def _wherever(value: str) -> str:
    """A path of the user's, or a function in a file, as it is found from any folder."""
    path, colon, name = value.rpartition(":") if value.rpartition(":")[0].endswith(".py") else (value, "", "")
    return f"{Path(path).absolute()}{colon}{name}" if Path(path).exists() else value


def _in_a_checkout(argument: str, root: Path) -> str:
    """A path into this checkout as one into any: both sides would run what is here."""
    path, *node = argument.split("::", 1)
    there = Path(path).resolve()
    if argument.startswith("-") or not there.exists() or not there.is_relative_to(root):
        return argument
    return "::".join((str(there.relative_to(root)), *node))


def _rounds(text: str) -> int:
    if not text.isdecimal() or int(text) < FEWEST_ROUNDS:
        raise ValueError(f"--versus-rounds: {text!r} rounds say nothing of their spread; make {FEWEST_ROUNDS} or more")
    return int(text)
