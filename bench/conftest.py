import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from bench import interrupts
from bench.measure.case import Case
from bench.measure.jobs import load_job
from bench.meters.allocator_settings import AllocatorSettings
from bench.meters.cgroup import NoCgroup, limited
from bench.meters.measure import Measurement, measure
from bench.meters.process import child_process
from bench.selftest.small_suite import Suite
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.making import make
from model.checkpoints.specification import Specification

Measure = Callable[..., Measurement]

LIMIT_SECONDS = 120.0

ROOT = Path(__file__).parents[1]

# The end of a plugin with which there is no page.
WITHOUT_ALTAIR = """
import sys

sys.modules["altair"] = None
"""

# Runs of the whole suite and of a small one, checkpoints and measured loads, for the tests of all rooms.
Bench = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def real_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Specification], Checkpoint]:
    """Makes checkpoints, each once."""
    folder = tmp_path_factory.mktemp("checkpoints")

    @cache
    def get(specification: Specification) -> Checkpoint:
        beside = get(specification.weights).folder if specification.weights else None
        make(specification, folder / specification.name, lambda _: None)
        return Checkpoint(specification, folder / specification.name, weights_folder=beside)

    return get


@pytest.fixture(scope="session")
def load(
    planned_checkpoint: Callable[[Specification], Checkpoint], real_checkpoint: Callable[[Specification], Checkpoint]
) -> Measure:
    """Measures the load of a case in a process of its own; what was measured before is not measured again."""

    @cache
    def measured(case: Case, settings: AllocatorSettings | None = None, layout: str | None = None) -> Measurement:
        """`layout`: of the checkpoint, where it is not the one that the strategy is measured with."""
        specification, small = (
            replace(one, layout=layout or one.layout) for one in (case.specification, case.rehearsal)
        )
        checkpoint = (planned_checkpoint if case.planned else real_checkpoint)(specification)
        rehearsal = real_checkpoint(small)
        return measure(load_job(case, case.strategy.load, checkpoint, rehearsal, settings=settings), LIMIT_SECONDS)

    return measured


@pytest.fixture(scope="session")
def with_cgroups() -> None:
    """Skip the test where the memory of a process cannot be limited."""
    with child_process(_wait, None, LIMIT_SECONDS) as child:
        try:
            with limited(2**30, child.pid):
                child.end()
        except NoCgroup as error:
            pytest.skip(str(error))


def _wait(connection: Any, _: object) -> None:
    connection.recv()


def environment_of(folder: Path, plugin: str) -> dict[str, str]:
    """Return the environment of a run whose files are in a folder; `-p injected` gives it the plugin of this text."""
    (folder / "plugins").mkdir(exist_ok=True)
    (folder / "plugins" / "injected.py").write_text(plugin)
    # A job that runs this is not to annotate what is made to fail.
    github = {"GITHUB_ACTIONS": "false", "GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
    # Nor is it to run with the options of those who run these tests.
    own = {"COLUMNS": "120", "PYTEST_ADDOPTS": "", "PYTHONPATH": str(folder / "plugins")}
    environment = os.environ | own | github
    # What is compiled once is compiled once, as on a machine of theirs.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the folder where runs of this module keep their checkpoints and records."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "checkpoints").mkdir()
    return folder


@pytest.fixture(scope="module")
def bench(folder: Path) -> Bench:
    """`pytest bench` on tiny, or on a `--model`, in a process of its own; `plugin` is the text of one, `env` is added.

    Without `page` it is as if the extra for that were not installed: a page takes two seconds.
    """

    def run(
        *options: str, plugin: str | None = None, page: bool = False, env: Mapping[str, str] = MappingProxyType({})
    ) -> "subprocess.CompletedProcess[str]":
        environment = environment_of(folder, (plugin or "") + ("" if page else WITHOUT_ALTAIR)) | dict(env)
        options = ("-p", "injected", *options)
        where = ("--checkpoint-dir", str(folder / "checkpoints"), "--benchmark-storage", str(folder / "results"))
        which = () if "--model" in options else ("--sizes", "tiny")
        command = (sys.executable, "-m", "pytest", "bench", "-p", "no:cacheprovider", *which, *where)
        return subprocess.run(  # noqa: S603 - what a user would type
            (*command, *options), cwd=ROOT, env=environment, text=True, capture_output=True, check=False
        )

    return run


@pytest.fixture
def suite(pytester: pytest.Pytester) -> Iterator[Suite]:
    with interrupts.interruptible():
        yield Suite(pytester)


def recorded(folder: Path) -> list[Path]:
    """List the runs that `bench` recorded, in their order."""
    return sorted((folder / "results").rglob("*.json"), key=lambda file: file.name.removeprefix("failed-"))


def last_record(folder: Path) -> dict[str, Any]:
    return json.loads(recorded(folder)[-1].read_text())
