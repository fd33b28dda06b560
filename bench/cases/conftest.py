from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from bench.cases.case import Case
from bench.meters.measure import Measurement, measure
from bench.meters.simulated.allocator_settings import AllocatorSettings
from model.checkpoints import Checkpoint, Specification, make, make_sparse

Plan = Callable[..., Measurement]

LIMIT_SECONDS = 120.0


@pytest.fixture(scope="session")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Plans a load; a case that was planned with the same settings before is not planned again."""
    folder = tmp_path_factory.mktemp("plan")

    @cache
    def sparse(specification: Specification) -> Checkpoint:
        make_sparse(specification, folder / specification.name)
        return Checkpoint(specification, folder / specification.name)

    @cache
    def rehearsal(specification: Specification) -> Checkpoint:
        make(specification, Path(folder / specification.name), lambda _: None)
        return Checkpoint(specification, folder / specification.name)

    @cache
    def planned(case: Case, settings: AllocatorSettings | None = None) -> Measurement:
        job = case.job(case.strategy.load, sparse(case.specification), rehearsal(case.rehearsal), settings=settings)
        return measure(job, LIMIT_SECONDS)

    return planned
