"""The command `weight-loading-bench`, and pytest on the suite's settings from the folder of any other project."""

import os
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import pytest

# The tree. This module is run as a part of the installed package too, where no other of the suite is found by its name.
ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ROOT / "pyproject.toml"

# Set in a run that was started again with the suite's settings.
STARTED_AGAIN = "WEIGHT_LOADING_STARTED_AGAIN"

# Options that a path follows.
_OF_PATHS = (
    *("--model", "--checkpoint", "--example-input", "--loader", "--tp-plan"),
    *("--checkpoint-dir", "--report", "--export", "--benchmark-storage", "--benchmark-json"),
)


def main() -> int:
    """Run pytest on the benchmarks with the arguments of the command line, and return its exit status."""
    arguments = sys.argv[1:]
    if information := _information({*arguments}):
        sys.stdout.write(information)
        return 0
    if stray := next(_stray(arguments), None):
        sys.stderr.write(f"ERROR: {stray} is no option; write --model {stray} if it is your model\n")
        return int(pytest.ExitCode.USAGE_ERROR)
    # pytest's cache would be written beside the installed files.
    sys.argv[1:] = with_own_settings([str(ROOT / "bench"), "-p", "no:cacheprovider", *arguments])
    return int(pytest.console_main())


def _information(arguments: set[str]) -> str:
    """Return what `--help` and `--version` print, without all that pytest has to say; "": neither is there."""
    if not {"-h", "--help", "-V", "--version"} & arguments:
        return ""
    sys.path.insert(0, str(ROOT))
    from bench.plugin.option import command_help  # noqa: PLC0415 - found by now
    from bench.plugin.options import OPTIONS  # noqa: PLC0415
    from model.installation import NAME  # noqa: PLC0415

    return command_help(NAME, OPTIONS) if {"-h", "--help"} & arguments else f"{NAME} {version(NAME)}\n"


def _stray(arguments: Sequence[str]) -> Iterator[str]:
    """Yield what is neither an option nor the value of one: pytest would take it for a file of tests."""
    for before, argument in zip(("", *arguments), arguments, strict=False):
        is_value = before.startswith("-") and "=" not in before
        if not is_value and not argument.startswith("-"):
            yield argument


def with_own_settings(arguments: Sequence[str]) -> list[str]:
    """Return arguments with which pytest reads the suite's settings, and no settings or conftest.py of the caller's."""
    return ["-c", str(SETTINGS), "--rootdir", str(ROOT), *_joined(arguments)]


def _joined(arguments: Sequence[str]) -> Iterator[str]:
    """Yield `--model=PATH` for `--model PATH`: pytest takes a path that stands alone for one of tests."""
    rest = iter(arguments)
    for argument in rest:
        value = next(rest, None) if argument in _OF_PATHS else None
        yield argument if value is None else f"{argument}={value}"


def require_own_settings(config: pytest.Config) -> None:
    """Start pytest again, with the suite's settings, where it read those of the project that the caller is in.

    pytest reads the settings that are next to all paths of its command line, and takes those of options for such.
    Raises `UsageError` where the command line says so.
    """
    if config.inipath and config.inipath.resolve() == SETTINGS:
        return
    if STARTED_AGAIN in os.environ or hasattr(config, "workerinput"):
        raise pytest.UsageError(f"pytest reads the settings in {config.inipath}; leave out -c and --rootdir")
    again = with_own_settings(config.invocation_params.args)
    # Without the current folder, which `-m` would put before all others that modules are found in.
    os.execve(  # noqa: S606 - the same program
        sys.executable, [sys.executable, "-P", "-m", "pytest", *again], {**os.environ, STARTED_AGAIN: "1"}
    )
