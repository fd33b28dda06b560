"""Wires the rooms together: options in, checkpoints and records for the tests, a table at the end."""

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from pytest_benchmark.logger import PytestBenchmarkWarning

from bench import interrupts  # before torch, and what else takes seconds
from bench.conformance import profiles
from bench.conformance.isolated_runner import IsolatedRunner
from bench.history.fingerprint import fingerprint
from bench.measure.case import Case
from bench.measure.expected import blank_record, shortage
from bench.measure.refusals import skip_reason
from bench.meters import process
from bench.meters.budget import Budget
from bench.plugin import hangs
from bench.plugin.history_options import OPTIONS as HISTORY_OPTIONS
from bench.plugin.history_options import history_options
from bench.plugin.options import OPTIONS, add_options, settings
from bench.plugin.preconditions import require_room, require_surroundings
from bench.plugin.progress import progress_bar, say, uncaptured
from bench.plugin.regression import RegressionPlugin
from bench.plugin.reporter import Reporter
from bench.plugin.selection import arranged, case_of
from bench.plugin.settings import Settings
from bench.plugin.silent_rank import SilentRank
from bench.plugin.stand_in import require_stand_in
from bench.plugin.terminal import Terminal, pytest_cmdline_main  # noqa: F401 - a hook
from bench.plugin.unusable_checkpoints import CheckpointUnusable, UnusableCheckpoints
from bench.plugin.user_warnings import UserWarnings
from bench.plugin.versus import OPTIONS as VERSUS_OPTIONS
from bench.plugin.versus import Versus
from bench.record.record import Record
from bench.sharded.rank_checks import RankChecks
from bench.sharded.rank_group import RankGroup
from bench.sharded.rendezvous import RankRendezvous
from bench.sharded.sharded_case import ShardedCase
from model.checkpoint_cache import CheckpointCache, DiskTooSmall, MemoryTooSmall, cache_folder
from model.checkpoints import Checkpoint, Specification, make_sparse
from model.examine.trust import UntrustedCheckpoint
from model.run_folder import begin_run_folder, run_folder
from model.user.user_code import UserCodeFailed

# Runs of pytest within tests.
pytest_plugins = ["pytester"]

SETTINGS = pytest.StashKey[Settings]()
SHELF = pytest.StashKey[CheckpointCache]()
MEETINGS = pytest.StashKey[dict[RankGroup, RankRendezvous]]()

# What ranks import before they load, and would be seconds in every one of their processes.
RANK_MODULES = ("bench.sharded.rank_loads", "torch.distributed.fsdp", "torch.distributed.tensor.parallel")
# How long the processes of a run that are on other machines may take to make a checkpoint.
AGREEMENT_SECONDS = 3600.0

# Before hypothesis looks for the profile that its own option names.
profiles.register()


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser.getgroup("weight loading"), (*OPTIONS, *HISTORY_OPTIONS, *VERSUS_OPTIONS))


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if not config.option.help:
        interrupts.interrupt_the_run()
    require_surroundings(vars(config.option), sys.flags.optimize)
    if hasattr(config, "workerinput"):
        interrupts.be_no_worker()
    require_stand_in(config)
    begin_run_folder(cache_folder())
    config.pluginmanager.register(UserWarnings(config), "user warnings")
    # As pytest's own filters have it: what options name is built before those are in force.
    warnings.filterwarnings("ignore", "Failed to initialize NumPy", UserWarning)
    try:
        config.stash[SETTINGS] = chosen = settings(config.option)
        history = history_options(config.option)
        versus = Versus(config, history, chosen.checkpoints) if config.option.versus else None
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    process.preload([one.text for one in chosen.references], chosen.libraries)
    config.stash[MEETINGS] = {team: RankRendezvous(team) for team in chosen.teams}
    leads = all(team.leads for team in chosen.teams)
    require_room(chosen.budget, chosen.device)
    gate = RegressionPlugin(config, history, chosen.wants)
    config.stash[SHELF] = shelf = CheckpointCache(
        chosen.checkpoints, partial(say, config), partial(progress_bar, config)
    )
    if config.option.benchmark_storage == "file://./.benchmarks":  # pytest-benchmark's own default
        config.option.benchmark_storage = f"file://{config.rootpath / 'results'}"
    reporter = Reporter(config.rootpath, chosen, gate, versus) if leads else None
    follower = None if leads else SilentRank(config)
    unsound = UnusableCheckpoints(shelf.held)
    for plugin in filter(None, (gate, versus, reporter, hangs, follower, unsound, Terminal())):
        config.pluginmanager.register(plugin)
    # A run of self-tests alone has nothing to save: no need to say so. Said when pytest's own filters are gone.
    warnings.filterwarnings("ignore", "Not saving anything", PytestBenchmarkWarning)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Make warnings errors in the suite's own tests: where something is measured, they may be of the user's code."""
    if item.path.parent != item.config.rootpath / "bench":
        errors = pytest.mark.filterwarnings("error", *item.config.getini("filterwarnings"))
        # The marks of a test itself come after it.
        item.add_marker(errors, append=False)


def pytest_unconfigure(config: pytest.Config) -> None:
    if SHELF in config.stash:
        config.stash[SHELF].close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        chosen, marker = metafunc.config.stash[SETTINGS], metafunc.definition.get_closest_marker
        real = marker("real_device") is not None
        cases: Sequence[Case] = chosen.limits() if marker("limit") else chosen.cases(real=real)
        if marker("own_model"):
            cases = chosen.judged()
        if marker("sharded"):
            cases = chosen.sharded_cases(real=real)
        wanted = (chosen.budget or not marker("budget")) and (chosen.find_minimum or not marker("minimum"))
        # What is apart is a promise, and of other projects none is made.
        wanted_cases = [case for case in cases if case.strategy.peer is None or not marker("apart")]
        metafunc.parametrize("case", wanted_cases if wanted else [], ids=str)
    if "trial" in metafunc.fixturenames:
        metafunc.parametrize("trial", metafunc.config.stash[SETTINGS].trials(), ids=str)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items[:], idle = arranged(items, config.stash[SETTINGS])
    config.hook.pytest_deselected(items=idle)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Say that the disk is too small before anything is written to it, while what loads are forked from gets ready."""
    if session.config.option.collectonly:
        return
    if any(item.get_closest_marker("ranks") for item in session.items):
        process.preload(modules=RANK_MODULES)
    cases = [case for item in session.items if (case := case_of(item)) and skip_reason(case) is None]
    if cases:
        process.warm_up()
    loaded = {case.rehearsal if case.planned else case.specification for case in cases}
    # A plan rehearses the user's model as it plans it.
    specifications = {one for one in loaded if not (one.own and cases[0].planned)}
    if specifications:
        try:
            folder = session.config.stash[SETTINGS].checkpoints
            folder.mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=folder).close()  # It may be there, and be read-only.
            session.config.stash[SHELF].require_space(specifications)
        except DiskTooSmall as error:
            raise pytest.UsageError(f"{error}, or count the peaks with --plan") from None
        except OSError as error:
            raise pytest.UsageError(f"checkpoints cannot be kept: {error}; name a folder with --checkpoints") from None
    if cases and cases[0].user_model and not cases[0].planned:
        _ask(session.config, cases[0])
    session.config.pluginmanager.getplugin("user warnings").say()


def _ask(config: pytest.Config, case: Case) -> None:
    """Make the first checkpoint of the user's model, which asks it its example, before anything is measured."""
    try:
        checkpoint = _found(config, case.specification)
    except UserCodeFailed as error:
        raise pytest.UsageError(str(error)) from None
    except (pytest.skip.Exception, pytest.fail.Exception):
        return  # Its tests will say so.
    if note := checkpoint.answers().note:
        say(config, f"{case.size}: {note}")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of a file together, in order: what they share is made once, and the longest files come first."""
    from xdist.scheduler import LoadFileScheduling  # noqa: PLC0415 - of an extra

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


@pytest.fixture
def rendezvous(case: ShardedCase, pytestconfig: pytest.Config) -> RankRendezvous:
    """Where the processes that measure the ranks of a case meet."""
    return pytestconfig.stash[MEETINGS][case.group]


@pytest.fixture(scope="session")
def _trials_of(pytestconfig: pytest.Config) -> Iterator[Callable[[RankGroup], RankChecks]]:
    with ExitStack() as stack:
        yield cache(lambda team: stack.enter_context(RankChecks(pytestconfig.stash[MEETINGS][team])))


@pytest.fixture
def rank_checks(case: ShardedCase, _trials_of: Callable[[RankGroup], RankChecks]) -> RankChecks:
    """Processes in which the ranks of a case load drawn models: the same for all cases of its group."""
    return _trials_of(case.group)


def _agreed(config: pytest.Config, case: Case, objection: str | None) -> str | None:
    """What there is to object, in any of the processes that measure a case together."""
    if not isinstance(case, ShardedCase):
        return objection
    return config.stash[MEETINGS][case.group].agree(objection, AGREEMENT_SECONDS)


@pytest.fixture
def able(case: Case, pytestconfig: pytest.Config) -> None:
    """The test is skipped, before anything is made for it, where the case cannot be measured."""
    if objection := _agreed(pytestconfig, case, skip_reason(case)):
        pytest.skip(objection)


@pytest.fixture
def checkpoint(
    case: Case,
    able: None,  # noqa: ARG001 - it skips
    request: pytest.FixtureRequest,
    pytestconfig: pytest.Config,
    planned_checkpoint: Callable[[Specification], Checkpoint],
) -> Checkpoint:
    """The checkpoint of a case, made if it is not there; the test is skipped where memory cannot hold the load."""
    if case.planned:
        return planned_checkpoint(case.specification)
    limited = request.node.get_closest_marker("limited")
    if not limited and (too_small := _agreed(pytestconfig, case, shortage(case))):
        pytest.skip(f"{too_small}; --plan counts the peaks of such a load")
    return _get(pytestconfig, case, case.specification)


@pytest.fixture(scope="session")
def planned_checkpoint() -> Iterator[Callable[[Specification], Checkpoint]]:
    """Makes checkpoints of which only the sizes are there; they last as long as the run."""
    with TemporaryDirectory(prefix="plan-", dir=run_folder()) as folder:

        @cache
        def get(specification: Specification) -> Checkpoint:
            make_sparse(specification, Path(folder) / specification.name)
            return Checkpoint(specification, Path(folder) / specification.name)

        yield get


@pytest.fixture
def rehearsal(
    case: Case,
    able: None,  # noqa: ARG001 - it skips
    pytestconfig: pytest.Config,
    planned_checkpoint: Callable[[Specification], Checkpoint],
) -> Checkpoint:
    """A checkpoint like that of a case, but so small that loading it measures nothing, where the loader takes one."""
    if case.planned and case.rehearsal.own:
        return planned_checkpoint(case.rehearsal)
    return _get(pytestconfig, case, case.rehearsal)


def _get(config: pytest.Config, case: Case, specification: Specification) -> Checkpoint:
    """A checkpoint, which all processes that measure a case have; if one has none, they end in the same way."""
    try:
        found = _found(config, specification)
    except (pytest.skip.Exception, pytest.fail.Exception) as error:
        _agreed(config, case, str(error))
        raise
    if objection := _agreed(config, case, None):
        pytest.fail(objection, pytrace=False)
    return found


def _found(config: pytest.Config, specification: Specification) -> Checkpoint:
    try:
        with uncaptured(config):
            return config.stash[SHELF].get(specification)
    except MemoryTooSmall as error:
        raise pytest.skip.Exception(str(error)) from None
    except UntrustedCheckpoint as error:
        raise CheckpointUnusable(str(error)) from None
    except (DiskTooSmall, OSError) as error:
        raise pytest.fail.Exception(f"{specification.name} cannot be made: {error}", pytrace=False) from None


@pytest.fixture(scope="session")
def apart() -> Iterator[IsolatedRunner]:
    """A process in which loaders are tried that may end it."""
    with IsolatedRunner() as process_apart:
        yield process_apart


@pytest.fixture
def budget(pytestconfig: pytest.Config) -> Budget:
    """What loads may take."""
    return pytestconfig.stash[SETTINGS].budget


@pytest.fixture
def explain(pytestconfig: pytest.Config) -> bool:
    """Whether every peak is to be explained, not only those that are not what they should be."""
    return pytestconfig.stash[SETTINGS].explain


@pytest.fixture
def record(case: Case, benchmark: BenchmarkFixture) -> Iterator[Record]:
    """The record of a benchmark, with all that is known beforehand: what the test adds goes into the JSON."""
    benchmark.params = {"strategy": case.row, "size": case.size, "device": case.device}
    record = blank_record(case)
    # Tables of `pytest-benchmark compare` are of one model each, and of GPUs or what stands in for one.
    benchmark.group = record.model or ("stand-in for a GPU" if record.stand_in else None)
    yield record
    benchmark.extra_info.update(record.as_json())


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    replaced = fingerprint(machine_info, config.stash[SETTINGS].checkpoints)
    machine_info.clear()
    machine_info.update(replaced)
