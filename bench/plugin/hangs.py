"""A pytest plugin that skips a load that hung in an earlier test, so a run waits for it only once."""

import re
from collections.abc import Generator

import pytest

from bench.meters.process import LoadEnded
from bench.plugin.selection import case_of, conformance_case_of

_LATE = re.compile(r"not done within [\d.e+]+ s")

# By the row and the model of the first test in which a load was late.
Hangs = dict[tuple[str, str], str]
HANGS = pytest.StashKey[Hangs]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Skip a test of a load that was late before, and note loads that are late."""
    hangs = item.session.stash.setdefault(HANGS, {})
    if reason := earlier(hangs, item):
        pytest.skip(f"not measured: {reason}")
    try:
        yield
    except BaseException as error:
        case, late = case_of(item), lateness(error)
        if case and late:
            hangs.setdefault((case.row, case.size), f"{case.row} was {late} in {item.name.partition('[')[0]}")
        raise


def earlier(hangs: Hangs, item: pytest.Item) -> str | None:
    """Return which load of the same loader and model was late; None: none was. A conformance case is of any model."""
    if case := case_of(item):
        return hangs.get((case.row, case.size))
    conformance_case = conformance_case_of(item)
    return next(
        (told for (row, _), told in hangs.items() if conformance_case and row == conformance_case.strategy_name), None
    )


def lateness(error: BaseException | None) -> str | None:
    """Return how late the load was, in words, that a test failed for, or was skipped for; None: it was not late."""
    while error is not None:
        if isinstance(error, LoadEnded) and (late := _LATE.search(str(error))):
            return late[0]
        error = error.__context__
    return None
