"""Ends of a measurement without a result: a failure, or a skip with the reason."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from bench.measure.case import Case
from bench.measure.checks import NothingTold
from bench.measure.peer_refusals import one_line, refusal
from bench.measure.refusals import able, remedy, states_refusal
from bench.meters.budget import HostTooSmall
from bench.meters.cgroup import NoCgroup
from bench.meters.driver.card_kernels import NotComputed
from bench.meters.page_cache import StillCached
from bench.meters.process import LoadEnded
from bench.meters.simulated.simulated_device import NotSimulated
from bench.plugin.unusable_checkpoints import UNTRUSTED, CheckpointUnusable
from bench.strategies import STRATEGIES

# How a load ends that asks for more than the instrument has which stands in for a GPU.
_LACKING = tuple(f"{kind.__name__}: " for kind in (NotSimulated, NotComputed))


@contextmanager
def failures_reported(case: Case) -> Iterator[None]:
    """Fail the test, without the suite's own trace, for a load that ended early; skip it where limits cannot be set.

    A strategy that refuses a model of the user's, as its row in the table of strategies says that it has to, is skipped
    in its own words, and with what to do instead. So is a load of the user's that
    cannot be simulated, nor computed on the stand-in for a GPU.
    """
    try:
        yield
    except LoadEnded as error:
        if str(error).startswith(UNTRUSTED):
            raise CheckpointUnusable(str(error)) from None
        if case.strategy.peer:
            _end_of_peer(case, error)
        if states_refusal(case):
            pytest.skip(f"refused: {str(error).partition(': ')[2]}; {remedy(case)}")
        if (case.user_model or case.strategy.is_users) and str(error).startswith(_LACKING):
            pytest.skip(str(error).partition(": ")[2])
        raise pytest.fail.Exception(error.message, pytrace=False) from None
    except HostTooSmall as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    except (NoCgroup, StillCached, NothingTold) as error:
        pytest.skip(str(error))


def _end_of_peer(case: Case, error: LoadEnded) -> None:
    """End the test of another project's loader with one line: a trace is for that project."""
    if str(error).startswith(_LACKING):
        pytest.skip(str(error).partition(": ")[2])
    if case.user_model and (refused := refusal(case.strategy, case.device, case.user_model, error)):
        pytest.skip(f"{refused}; {_instead(able(case))}" if able(case) else refused)
    pytest.fail(one_line(error), pytrace=False)


def _instead(able: Sequence[str]) -> str:
    if len(able) == len(STRATEGIES):
        return "all strategies of the suite load it"
    return f"use {' or '.join(able)}"
