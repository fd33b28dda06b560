"""Failures of a test, from the problems of a measurement."""

from collections.abc import Iterable, Iterator, Mapping

import pytest

from bench.measure.checks import FailedCheck, Findings
from bench.meters.allocations import Alive
from bench.plugin.regression import MemoryRegression
from bench.report.alive import alive_lines


def require(problems: Iterable[FailedCheck]) -> None:
    """Fail the test if there are problems."""
    fail_for(Findings(problems=list(problems)))


def fail_for(found: Findings) -> None:
    """Fail the test if there are problems, or figures that grew; those that only grew are recorded."""
    alive = found.alive or {}
    grown = list(_lines(found.grown, alive))
    if found.problems:
        pytest.fail("\n".join([*_lines(found.problems, alive), *grown]), pytrace=False)
    if grown:
        raise MemoryRegression("\n".join(grown), pytrace=False)


def _lines(problems: Iterable[FailedCheck], alive: Alive | Mapping[str, tuple[()]]) -> Iterator[str]:
    """Return a line for every problem, and below it what was alive at that peak."""
    for problem in problems:
        yield problem.message
        yield from alive_lines(alive.get(problem.figure or "", ()))
