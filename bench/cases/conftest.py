from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest

from bench.cases.case import Case
from bench.meters.measure import Measurement, measure
from bench.meters.simulated.allocator_settings import AllocatorSettings
from model.checkpoints import Checkpoint, Specification, make

Measure = Callable[..., Measurement]

LIMIT_SECONDS = 120.0


@pytest.fixture(scope="session")
def load(
    planned_checkpoint: Callable[[Specification], Checkpoint], tmp_path_factory: pytest.TempPathFactory
) -> Measure:
    """Measures the load of a case in a process of its own; what was measured before is not measured again."""
    folder = tmp_path_factory.mktemp("checkpoints")

    @cache
    def real_checkpoint(specification: Specification) -> Checkpoint:
        make(specification, folder / specification.name, lambda _: None)
        return Checkpoint(specification, folder / specification.name)

    @cache
    def measured(case: Case, settings: AllocatorSettings | None = None, layout: str | None = None) -> Measurement:
        """`layout`: of the checkpoint, where it is not the one that the strategy is measured with."""
        specification, small = (
            replace(one, layout=layout or one.layout) for one in (case.specification, case.rehearsal)
        )
        checkpoint = (planned_checkpoint if case.planned else real_checkpoint)(specification)
        rehearsal = real_checkpoint(small)
        return measure(case.job(case.strategy.load, checkpoint, rehearsal, settings=settings), LIMIT_SECONDS)

    return measured
