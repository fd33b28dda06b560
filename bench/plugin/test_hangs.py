"""A load that hangs costs its time limit once."""

from types import SimpleNamespace
from typing import Any

import pytest

from bench.measure.case import Case
from bench.meters.process import LoadDied, LoadFailed
from bench.plugin import hangs
from bench.plugin.hangs import HANGS, lateness
from bench.sharded.rendezvous import RankFailed


class Session:
    """A session of pytest with a stash, and nothing else."""

    def __init__(self) -> None:
        self.stash = pytest.Stash()


def run(session: Session, name: str, case: Case, error: Exception | None = None) -> str | None:
    """Run a test that ends so, and return what it was skipped for."""
    item: Any = SimpleNamespace(
        name=f"{name}[{case}]", session=session, callspec=SimpleNamespace(params={"case": case})
    )
    hook = hangs.pytest_runtest_call(item)
    try:
        next(hook)
    except pytest.skip.Exception as skipped:
        return str(skipped)
    with pytest.raises(StopIteration if error is None else type(error)):
        hook.send(None) if error is None else hook.throw(error)
    return None


def failed_for(error: Exception) -> Exception:
    """Return how a test ends for it: see `failures_reported`."""
    try:
        try:
            raise error
        except type(error):
            raise ValueError("as a test fails") from None
    except ValueError as failed:
        return failed


LATE = LoadDied("the load was ended: it was not done within 60.5 s", "not done within 60.5 s")
CASE = Case("streamed", "tiny", "cpu", "float32")


def test_a_load_that_was_late_is_not_measured_again() -> None:
    session = Session()
    assert run(session, "test_own_equivalence", CASE, failed_for(LATE)) is None
    expected = "not measured: streamed was not done within 60.5 s in test_own_equivalence"
    assert run(session, "test_peak_memory", CASE) == expected
    assert run(session, "test_load_time", Case("streamed", "tiny", "sim", "float32")) == expected
    assert run(session, "test_load_time", Case("baseline", "tiny", "cpu", "float32")) is None
    assert run(session, "test_load_time", Case("streamed", "small", "cpu", "float32")) is None
    hung = session.stash[HANGS]
    assert list(hung) == [("streamed", "tiny")]


@pytest.mark.parametrize("error", [None, LoadFailed("KeyError: 'a'"), LoadDied("it died: SIGSEGV"), ValueError("late")])
def test_what_was_not_late_is_measured_again(error: Exception | None) -> None:
    session = Session()
    assert run(session, "test_peak_memory", CASE, error) is None
    assert run(session, "test_load_time", CASE) is None


def test_a_rank_that_was_late_is_told_of() -> None:
    assert lateness(failed_for(RankFailed(f"rank 1 of 2: {LATE}"))) == "not done within 60.5 s"
    assert lateness(None) is None
