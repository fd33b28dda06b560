"""Fixtures of the benchmark tests: the checkpoints of a case, its record, and the processes that measure it."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.conformance.isolated_runner import IsolatedRunner
from bench.measure.case import Case
from bench.measure.expected import blank_record, shortage
from bench.measure.refusals import skip_reason
from bench.meters.budget import Budget
from bench.plugin.options import Options
from bench.plugin.progress import uncaptured
from bench.plugin.run_state import CHECKPOINT_CACHE, RANK_MEETINGS, SETTINGS
from bench.plugin.selection import case_of
from bench.plugin.unusable_checkpoints import CheckpointUnusable
from bench.record.record import Record
from bench.sharded.metered_ranks import MeteredRanks, RankPlans
from bench.sharded.rank_checks import RankChecks
from bench.sharded.rank_group import RankGroup
from bench.sharded.rendezvous import RankRendezvous
from bench.sharded.sharded_case import ShardedCase
from model.checkpoints.cache import DiskTooSmall, MemoryTooSmall
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.making import make_sparse
from model.checkpoints.specification import Specification
from model.examine.trust import UntrustedCheckpoint
from model.run_folder import run_folder

# How long the processes of a run that are on other machines may take to make a checkpoint.
AGREEMENT_SECONDS = 3600.0


@pytest.fixture
def budget(pytestconfig: pytest.Config) -> Budget:
    """The most memory that loads may take."""
    return pytestconfig.stash[SETTINGS].budget


@pytest.fixture
def options(pytestconfig: pytest.Config) -> Options:
    """The options of the run."""
    return pytestconfig.stash[SETTINGS].options


@pytest.fixture
def explain(pytestconfig: pytest.Config) -> bool:
    """True where every peak is explained, not only those that are not what they should be."""
    return pytestconfig.stash[SETTINGS].options.explain


@pytest.fixture
def record(case: Case, benchmark: BenchmarkFixture) -> Iterator[Record]:
    """The record of a benchmark, with all that is known beforehand: what the test adds goes into the JSON."""
    benchmark.params = {"strategy": case.row, "size": case.size, "device": case.device}
    record = blank_record(case)
    # Tables of `pytest-benchmark compare` are of one model each, and of GPUs or what stands in for one.
    benchmark.group = record.model or ("stand-in for a GPU" if record.stand_in else None)
    # An interrupt between two rounds saves the benchmark before this fixture ends: then this is its record.
    benchmark.extra_info.update(record.as_json())
    yield record
    benchmark.extra_info.update(record.as_json())


@pytest.fixture
def measurable(case: Case, pytestconfig: pytest.Config) -> None:
    """The test is skipped, before anything is made for it, where the case cannot be measured."""
    if objection := _agreed(pytestconfig, case, skip_reason(case)):
        pytest.skip(objection)


@pytest.fixture
def checkpoint(
    case: Case,
    measurable: None,  # noqa: ARG001 - it skips
    request: pytest.FixtureRequest,
    pytestconfig: pytest.Config,
    planned_checkpoint: Callable[[Specification], Checkpoint],
) -> Checkpoint:
    """The checkpoint of a case, made if it is not there; the test is skipped where memory cannot hold the load."""
    if case.planned:
        return planned_checkpoint(case.specification)
    limited = request.node.get_closest_marker("limited")
    if not limited and (objection := _agreed(pytestconfig, case, shortage(case))):
        pytest.skip(f"{objection}; add --plan to compute its peaks")
    return _get(pytestconfig, case, case.specification)


@pytest.fixture
def rehearsal(
    case: Case,
    measurable: None,  # noqa: ARG001 - it skips
    pytestconfig: pytest.Config,
    planned_checkpoint: Callable[[Specification], Checkpoint],
) -> Checkpoint:
    """A checkpoint like that of a case, but so small that loading it measures nothing, where the loader takes one."""
    if case.planned and case.rehearsal.user_model:
        return planned_checkpoint(case.rehearsal)
    return _get(pytestconfig, case, case.rehearsal)


@pytest.fixture(scope="session")
def planned_checkpoint() -> Iterator[Callable[[Specification], Checkpoint]]:
    """Makes checkpoints of which only the sizes are there; they last as long as the run."""
    with TemporaryDirectory(prefix="plan-", dir=run_folder()) as folder:

        @cache
        def get(specification: Specification) -> Checkpoint:
            make_sparse(specification, Path(folder) / specification.name)
            return Checkpoint(specification, Path(folder) / specification.name)

        yield get


@pytest.fixture(scope="session")
def isolated_runner() -> Iterator[IsolatedRunner]:
    """A process for loaders that may end it."""
    with IsolatedRunner() as runner:
        yield runner


@pytest.fixture
def rendezvous(case: ShardedCase, pytestconfig: pytest.Config) -> RankRendezvous:
    """The rendezvous of the processes that measure the ranks of a case."""
    return pytestconfig.stash[RANK_MEETINGS][case.group]


@pytest.fixture(scope="session")
def rank_plans(
    request: pytest.FixtureRequest,
    pytestconfig: pytest.Config,
    planned_checkpoint: Callable[[Specification], Checkpoint],
) -> Iterator[RankPlans]:
    """The planned loads of ranks that this run measures, some of them at a time."""

    def coming() -> Iterator[MeteredRanks]:
        found = dict.fromkeys(case_of(item) for item in request.session.items)
        for case in (one for one in found if isinstance(one, ShardedCase) and one.planned and not skip_reason(one)):
            rehearsal = find_checkpoint(pytestconfig, case.rehearsal)
            rendezvous = pytestconfig.stash[RANK_MEETINGS][case.group]
            yield MeteredRanks(case, rendezvous, planned_checkpoint(case.specification), rehearsal)

    with RankPlans(coming, os.cpu_count() or 1) as plans:
        yield plans


@pytest.fixture(scope="session")
def _rank_checks_of(pytestconfig: pytest.Config) -> Iterator[Callable[[RankGroup], RankChecks]]:
    with ExitStack() as stack:
        yield cache(lambda team: stack.enter_context(RankChecks(pytestconfig.stash[RANK_MEETINGS][team])))


@pytest.fixture
def rank_checks(case: ShardedCase, _rank_checks_of: Callable[[RankGroup], RankChecks]) -> RankChecks:
    """The processes in which the ranks of a case load drawn models: the same for all cases of its team."""
    return _rank_checks_of(case.group)


def find_checkpoint(config: pytest.Config, specification: Specification) -> Checkpoint:
    """Return a checkpoint, made if it is not there; a test is skipped or fails where it cannot be made."""
    try:
        with uncaptured(config):
            return config.stash[CHECKPOINT_CACHE].get(specification)
    except MemoryTooSmall as error:
        raise pytest.skip.Exception(str(error)) from None
    except UntrustedCheckpoint as error:
        raise CheckpointUnusable(str(error)) from None
    except (DiskTooSmall, OSError) as error:
        raise pytest.fail.Exception(f"{specification.name} cannot be made: {error}", pytrace=False) from None


def _get(config: pytest.Config, case: Case, specification: Specification) -> Checkpoint:
    """Return a checkpoint that all processes that measure a case have; if one has none, they end in the same way."""
    try:
        found = find_checkpoint(config, specification)
    except (pytest.skip.Exception, pytest.fail.Exception) as error:
        _agreed(config, case, str(error))
        raise
    if objection := _agreed(config, case, None):
        pytest.fail(objection, pytrace=False)
    return found


def _agreed(config: pytest.Config, case: Case, objection: str | None) -> str | None:
    """Return the objection of any of the processes that measure a case together."""
    if not isinstance(case, ShardedCase):
        return objection
    return config.stash[RANK_MEETINGS][case.group].agree(objection, AGREEMENT_SECONDS)
