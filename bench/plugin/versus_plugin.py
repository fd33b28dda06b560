"""A pytest plugin for `--versus`: it measures two sides in turn, in place of the tests."""

import os
from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from bench.plugin.options import Options
from bench.plugin.progress import write_line
from bench.versus.environments import EnvironmentFailed, prepare
from bench.versus.interleaved_runs import RunFailed, measure_in_turn
from bench.versus.side_comparison import SideComparison, compare_sides
from bench.versus.sides import parse
from bench.versus.uv import require_uv
from model.run_folder import run_folder

# Options of this process, and not of the runs that it starts. A value follows each.
_OURS = (
    *("--versus", "--versus-rounds", "--memory-compare-fail", "--time-compare-fail", "--benchmark-storage"),
    *("--checkpoint-dir", "--benchmark-save"),
)

# Options that name a path of the user's, which is no part of either side.
_USERS = ("--model", "--checkpoint", "--example-input", "--loader")


class Versus:
    """`folder` holds the checkpoints that both sides load, and gets their environments."""

    def __init__(self, config: pytest.Config, options: Options, folder: Path) -> None:
        """Raises `ValueError` with one line: what cannot be compared, and what could."""
        assert options.versus is not None
        self._config, self._folder = config, folder
        self._sides = parse(options.versus, config.rootpath)
        require_uv()
        self._rounds = options.versus_rounds
        if "--versus" in os.environ.get("PYTEST_ADDOPTS", ""):
            raise ValueError("--versus: PYTEST_ADDOPTS passes it on to both sides; write it on the command line")
        # No threshold is off beside --versus.
        assert options.time_compare_fail is not None
        assert options.memory_compare_fail is not None
        self._thresholds = options.time_compare_fail, options.memory_compare_fail
        self.result: SideComparison | None = None
        self.complaints: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> bool:
        """Collect nothing: both sides collect for themselves."""
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> bool:
        root, write = self._config.rootpath, partial(write_line, self._config)
        options = forwarded(self._config.invocation_params.args, root, self._folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix="versus-", dir=run_folder()) as name:
                runs = Path(name)
                one, other = (prepare(side, root, self._folder, runs, write) for side in self._sides)
                measured = measure_in_turn(one, other, options, self._rounds, runs, write)
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
    """Return the arguments of a run of either side: the same, less those of this process; it starts in its checkout."""
    kept, rest = ["--checkpoint-dir", str(checkpoints.resolve())], iter(arguments)
    for argument in rest:
        name, _, value = argument.partition("=")
        if name in _OURS:
            if not value:
                next(rest, None)
        elif name in _USERS:
            kept += [name, _absolute(value or next(rest, ""))]
        else:
            kept.append(_in_a_checkout(argument, root))
    return kept


def _absolute(value: str) -> str:
    """Return a path of the user's, or a function in a file, as it is found from any folder."""
    path, colon, name = value.rpartition(":") if value.rpartition(":")[0].endswith(".py") else (value, "", "")
    return f"{Path(path).absolute()}{colon}{name}" if Path(path).exists() else value


def _in_a_checkout(argument: str, root: Path) -> str:
    """Return a path into this checkout as one into any: else both sides would run what is here."""
    path, *node = argument.split("::", 1)
    there = Path(path).resolve()
    if argument.startswith("-") or not there.exists() or not there.is_relative_to(root):
        return argument
    return "::".join((str(there.relative_to(root)), *node))
