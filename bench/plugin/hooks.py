"""Hooks of a run: check options, register plugins, parametrize tests and sort them."""

import os
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from tempfile import TemporaryFile
from typing import Any

import pytest
from pytest_benchmark.logger import PytestBenchmarkWarning

from bench import interrupts
from bench.conformance import profiles
from bench.history.fingerprint import fingerprint
from bench.measure.case import Case
from bench.measure.judging import judges_whole
from bench.measure.refusals import skip_reason
from bench.meters import process
from bench.plugin import hangs
from bench.plugin.cases import cases, conformance_cases, judged_cases, roofline_cases, sharded_cases
from bench.plugin.command import require_own_settings
from bench.plugin.fixtures import find_checkpoint
from bench.plugin.history_scope import belongs, records_folder
from bench.plugin.option import add_options, typed
from bench.plugin.options import OPTIONS, parsed
from bench.plugin.preconditions import require_benchmarks, require_own_tests, require_room, require_surroundings
from bench.plugin.progress import progress_bar, write_line
from bench.plugin.rank_groups import rank_prefix
from bench.plugin.regression import RegressionPlugin, comparison_request
from bench.plugin.reporter import Reporter
from bench.plugin.run_state import CHECKPOINT_CACHE, RANK_MEETINGS, SETTINGS
from bench.plugin.selection import arranged, case_of
from bench.plugin.settings import settings
from bench.plugin.silent_rank import SilentRank
from bench.plugin.stand_in import require_stand_in
from bench.plugin.status_line import StatusLine
from bench.plugin.terminal import Terminal
from bench.plugin.unusable_checkpoints import UnusableCheckpoints
from bench.plugin.user_modules import libraries, references
from bench.plugin.user_warnings import UserWarnings
from bench.plugin.versus_plugin import Versus
from bench.report.advice.command import PROGRAM
from bench.sharded.rendezvous import RankRendezvous
from model.checkpoints.cache import CheckpointCache, DiskTooSmall, cache_folder
from model.installation import NAME, is_installed, started
from model.run_folder import begin_run_folder
from model.user.user_code import UserCodeFailed

# What ranks import before they load, and would be seconds in every one of their processes.
RANK_MODULES = ("bench.sharded.rank_loads", "torch.distributed.fsdp", "torch.distributed.tensor.parallel")

# Before hypothesis looks for the profile that its own option names.
profiles.register()


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser, OPTIONS)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Check what was asked for, in this order: the process, the options, the machine; then register the plugins."""
    if not config.option.help:
        interrupts.interrupt_the_run()
    require_surroundings(vars(config.option), sys.flags.optimize)
    require_own_settings(config)
    require_own_tests(config)
    require_benchmarks(config)
    if hasattr(config, "workerinput"):
        interrupts.forget_xdist_worker()
    # Modules of the caller's are found there, after all others.
    sys.path.append(str(config.invocation_params.dir))
    try:
        options = parsed(config.option)
        require_stand_in(config, options)
        begin_run_folder(cache_folder())
        # It has to be there before the user's code is imported.
        config.pluginmanager.register(UserWarnings(config), "user warnings")
        # As pytest's own filters have it: what options name is built before those are in force.
        warnings.filterwarnings("ignore", "Failed to initialize NumPy", UserWarning)
        config.stash[SETTINGS] = chosen = settings(options)
        request = comparison_request(options, config.option)
        versus = Versus(config, options, chosen.checkpoints) if options.versus else None
    except ValueError as error:
        raise pytest.UsageError(f"{rank_prefix(os.environ)}{error}") from None
    process.preload([one.text for one in references(chosen)], libraries(chosen))
    require_room(chosen.budget, chosen.device, min((team.node_count for team in chosen.teams), default=1))
    config.stash[RANK_MEETINGS] = {team: RankRendezvous(team) for team in chosen.teams}
    config.stash[CHECKPOINT_CACHE] = checkpoint_cache = CheckpointCache(
        chosen.checkpoints, partial(write_line, config), partial(progress_bar, config)
    )
    if config.option.benchmark_storage == "file://./.benchmarks":  # pytest-benchmark's own default
        folder = records_folder(config.rootpath, config.invocation_params.dir, chosen)
        if folder.exists() and not folder.is_dir():
            raise pytest.UsageError(f"{folder.name} is a file; move it, or name a folder with --benchmark-storage")
        config.option.benchmark_storage = f"file://{folder}"
    regression = RegressionPlugin(config, request, partial(belongs, chosen))
    given = {PROGRAM: started(config.rootpath), **typed(config.option, OPTIONS)}
    output = (
        Reporter(config.rootpath, chosen, regression, versus, given) if chosen.has_rank_zero else SilentRank(config)
    )
    config.pluginmanager.register(StatusLine(config), StatusLine.NAME)
    # pytest calls what is registered last first: of hooks that wrap others, Terminal's are the outermost.
    for plugin in (regression, versus, output, hangs, UnusableCheckpoints(checkpoint_cache.held), Terminal()):
        if plugin is not None:
            config.pluginmanager.register(plugin)
    # A run of self-tests alone has nothing to save. After the plugins: pytest-benchmark warns when pytest's own
    # filters are gone.
    warnings.filterwarnings("ignore", "Not saving anything", PytestBenchmarkWarning)


def pytest_unconfigure(config: pytest.Config) -> None:
    if CHECKPOINT_CACHE in config.stash:
        config.stash[CHECKPOINT_CACHE].close()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Make warnings errors in the suite's own tests: where something is measured, they may be of the user's code."""
    if item.path.parent != item.config.rootpath / "bench":
        errors = pytest.mark.filterwarnings("error", *item.config.getini("filterwarnings"))
        # The marks of a test itself come after it.
        item.add_marker(errors, append=False)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = metafunc.config.stash[SETTINGS]
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", _cases_of(metafunc), ids=str)
    if "conformance_case" in metafunc.fixturenames:
        metafunc.parametrize("conformance_case", conformance_cases(chosen), ids=str)


def _cases_of(metafunc: pytest.Metafunc) -> Sequence[Case]:
    """List the cases of a test, by its markers: see `markers` in `pyproject.toml`."""
    chosen, marker = metafunc.config.stash[SETTINGS], metafunc.definition.get_closest_marker
    real = marker("real_device") is not None
    if (marker("budget") and not chosen.budget) or (marker("minimum") and not chosen.options.find_minimum):
        return []
    if marker("sharded"):
        sharded = sharded_cases(chosen, real=real)
        return [case for case in sharded if judges_whole(case)] if marker("gathered") and chosen.own else sharded
    if marker("own_model"):
        return judged_cases(chosen)
    if marker("limit"):
        return roofline_cases(chosen)
    found = cases(chosen, real=real)
    # What is not in the table is a promise. The suite makes none for other projects.
    return [case for case in found if case.strategy.peer is None] if marker("not_in_table") else found


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items[:], idle = arranged(items, config.stash[SETTINGS])
    config.hook.pytest_deselected(items=idle)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Prepare what the tests share. A disk that is too small ends the run before anything is written to it."""
    config = session.config
    if config.option.collectonly:
        return
    if any(item.get_closest_marker("ranks") for item in session.items):
        process.preload(modules=RANK_MODULES)
    measured = [case for item in session.items if (case := case_of(item)) and skip_reason(case) is None]
    if measured:
        # What loads are forked from gets ready while the disk is looked at.
        process.warm_up()
        _require_disk(config, measured)
        if measured[0].user_model and not measured[0].planned:
            _prepare_user_model(config, measured[0])
    config.pluginmanager.getplugin("user warnings").write_new()


def _require_disk(config: pytest.Config, measured: Sequence[Case]) -> None:
    """Raise `UsageError` with one line where the disk cannot hold the checkpoints of a run."""
    loaded = {case.rehearsal if case.planned else case.specification for case in measured}
    # A plan rehearses the user's model as it plans it.
    specifications = {one for one in loaded if not (one.user_model and measured[0].planned)}
    if not specifications:
        return
    try:
        folder = config.stash[SETTINGS].checkpoints
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()  # It may be there, and be read-only.
        config.stash[CHECKPOINT_CACHE].require_space(specifications)
    except DiskTooSmall as error:
        raise pytest.UsageError(f"{error}, or count the peaks with --plan") from None
    except OSError as error:
        raise pytest.UsageError(f"checkpoints cannot be kept: {error}; name a folder with --checkpoint-dir") from None


def _prepare_user_model(config: pytest.Config, case: Case) -> None:
    """Make the first checkpoint of the user's model, which calls it with its example, before anything is measured."""
    try:
        checkpoint = find_checkpoint(config, case.specification)
    except UserCodeFailed as error:
        raise pytest.UsageError(str(error)) from None
    except (pytest.skip.Exception, pytest.fail.Exception):
        return  # Its tests will fail for it.
    if note := checkpoint.reference_outputs().note:
        write_line(config, f"{case.size}: {note}")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of a file together, in order: what they share is made once, and the longest files come first."""
    from xdist.scheduler import LoadFileScheduling  # noqa: PLC0415 - of an extra

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


def pytest_benchmark_update_commit_info(commit_info: dict[str, Any]) -> None:
    # The message of git has the folder.
    if "error" in commit_info:
        commit_info["error"] = "git cannot read the repository of the current folder"
    if is_installed():
        commit_info["suite"] = version(NAME)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    replaced = fingerprint(machine_info, config.stash[SETTINGS].checkpoints)
    machine_info.clear()
    machine_info.update(replaced)
