from collections.abc import Callable
from functools import cache

import pytest

from bench.cases.case import Case
from bench.meters.measure import Measurement, measure
from bench.meters.simulated.allocator_settings import AllocatorSettings
from model.checkpoints import Checkpoint, Specification, make, make_sparse

Measure = Callable[..., Measurement]

LIMIT_SECONDS = 120.0


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Specification, bool], Checkpoint]:
    """Checkpoints that are made once: real ones, or with holes for the bytes."""
    folder = tmp_path_factory.mktemp("shelf")

    @cache
    def get(specification: Specification, holes: bool) -> Checkpoint:
        place = folder / f"{specification.name}{'-holes' * holes}"
        make_sparse(specification, place) if holes else make(specification, place, lambda _: None)
        return Checkpoint(specification, place)

    return get


@pytest.fixture(scope="session")
def load(shelf: Callable[[Specification, bool], Checkpoint]) -> Measure:
    """Measures the load of a case in a process of its own; what was measured before is not measured again."""

    @cache
    def measured(case: Case, settings: AllocatorSettings | None = None) -> Measurement:
        checkpoint, rehearsal = shelf(case.specification, case.planned), shelf(case.rehearsal, False)
        return measure(case.job(case.strategy.load, checkpoint, rehearsal, settings=settings), LIMIT_SECONDS)

    return measured
