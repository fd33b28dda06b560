"""How a measurement ends that has no result: as a failure, or as a skip with the reason."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.cases.case import Case
from bench.meters.budget import HostTooSmall
from bench.meters.cgroup import NoCgroup
from bench.meters.page_cache import StillCached
from bench.meters.process import LoadEnded
from bench.meters.simulated.world import NotSimulated


@contextmanager
def ending(case: Case) -> Iterator[None]:
    """Fail the test, without the suite's own trace, for a load that ended early; skip it where limits cannot be set.

    A strategy that refuses a model of the user's, as its row in the table of strategies says that it has to, is skipped
    in its own words, and with what to do instead. So is a load of the user's that cannot be simulated.
    """
    try:
        yield
    except LoadEnded as error:
        if case.states_refusal:
            pytest.skip(f"refused: {str(error).partition(': ')[2]}; {case.remedy}")
        if (case.own or case.strategy.is_own) and str(error).startswith(f"{NotSimulated.__name__}: "):
            pytest.skip(str(error).partition(": ")[2])
        raise pytest.fail.Exception(error.told, pytrace=False) from None
    except HostTooSmall as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    except (NoCgroup, StillCached) as error:
        pytest.skip(str(error))
