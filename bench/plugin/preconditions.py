"""Usage errors for runs that cannot work: `python -O`, parallel measurements, too little memory."""

from collections.abc import Mapping

import pytest

from bench.measure.case import TIMEOUT_SECONDS
from bench.meters.budget import Budget, empty_process_bytes, too_small


def require_surroundings(options: Mapping[str, object], optimised: int) -> None:
    """Raise `UsageError` with one line for `python -O` (`optimised`: `sys.flags.optimize`), and for pytest-xdist.

    `options` are pytest's. With `--benchmark-disable` nothing is timed, and tests may run beside each other.
    """
    if optimised:
        raise pytest.UsageError(
            "python -O drops assertions, and this suite checks by them; leave out -O, or unset PYTHONOPTIMIZE"
        )
    if options.get("dist", "no") != "no" and not options.get("benchmark_disable"):
        raise pytest.UsageError(
            "pytest-xdist: loads that run beside each other disturb each other; leave out -n and --dist, or add "
            "--benchmark-disable to test without timing"
        )


def require_own_tests(config: pytest.Config) -> None:
    """Raise `UsageError` for a word of the command line that names a file or folder outside the suite's tree."""
    for word in config.args:
        place = config.invocation_params.dir / word.partition("::")[0]
        # A checkout may have links to the sources.
        if not place.is_relative_to(config.rootpath) and not place.resolve().is_relative_to(config.rootpath.resolve()):
            raise pytest.UsageError(f"{word} is no option, and no test of this suite; is it the value of --model?")


# Options that only benchmarks know of.
_OF_BENCHMARKS = ("model", "loader", "plan", "sharded", "device_memory", "host_memory", "history", "versus")


def require_benchmarks(config: pytest.Config) -> None:
    """Raise `UsageError` where `pytest` alone, which tests the suite, is given an option of the benchmarks."""
    if config.args_source != pytest.Config.ArgsSource.TESTPATHS:
        return
    if name := next((name for name in _OF_BENCHMARKS if getattr(config.option, name)), None):
        typed = " ".join(("pytest bench", *config.invocation_params.args))
        raise pytest.UsageError(
            f"--{name.replace('_', '-')} is for the benchmarks, and pytest alone runs the tests of the "
            f"suite; add bench: "
            f"{typed}"
        )


def require_room(budget: Budget, device: str, processes: int = 1) -> None:
    """Raise `UsageError` for a budget that leaves nothing to load to the device with; so many processes share it."""
    if budget.host_bytes is not None:
        empty = empty_process_bytes(TIMEOUT_SECONDS, device) * processes
        if budget.host_bytes <= empty:
            raise pytest.UsageError(f"--host-memory: {too_small(budget.host_bytes, empty, device, processes)}")
