import multiprocessing
import os
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from bench.versus import environments
from bench.versus.conftest import AddWheel, Commit
from bench.versus.environments import Environment, EnvironmentFailed, prepare
from bench.versus.sides import HERE, Side, parse
from model.disk import UNFINISHED

PROJECT = '[project]\nname = "tiny-project"\n'
DEPENDENT = PROJECT + 'dependencies = ["tqdm>=1"]\n'


def refuse(line: str) -> None:
    pytest.fail(f"nothing was to be made: {line}")


def installed(environment: Environment, module: str) -> str:
    code = f"from importlib.metadata import version; print(version({module!r}))"
    return subprocess.run(
        (environment.python, "-I", "-c", code), text=True, capture_output=True, check=True
    ).stdout.strip()


@pytest.fixture
def two_tqdms(add_wheel: AddWheel) -> None:
    """The tqdm that is installed here, and a newer one."""
    add_wheel("tqdm", version("tqdm"))
    add_wheel("tqdm", "999.0")


def test_what_is_here_is_run_as_it_is(tmp_path: Path) -> None:
    here = Side(HERE)
    assert prepare(here, tmp_path, tmp_path / "cache", refuse) == Environment(here, Path(sys.executable), tmp_path)
    assert not (tmp_path / "cache").exists()


def install_half_and_die(python: Path, *_: object) -> None:
    (python.parents[1] / "half").touch()
    os.kill(os.getpid(), signal.SIGKILL)


def prepare_and_die(side: Side, root: Path, cache: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environments, "install", install_half_and_die)
        prepare(side, root, cache, lambda _: None)


@pytest.mark.usefixtures("two_tqdms")
def test_the_environment_of_a_requirement_is_made_whole_after_a_killed_run_and_then_reused(
    repository: Path, tmp_path: Path
) -> None:
    (repository / "pyproject.toml").write_text(DEPENDENT)
    side, cache = Side("tqdm==999.*", requirement="tqdm==999.*"), tmp_path / "cache"
    killed = multiprocessing.get_context("fork").Process(target=prepare_and_die, args=(side, repository, cache))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    [left] = [path for path in (cache / "environments").iterdir() if path.is_dir()]
    assert left.name.endswith(UNFINISHED)
    assert (left / "half").exists()

    said: list[str] = []
    made = prepare(side, repository, cache, said.append)
    assert said == ["tqdm==999.*: making an environment with tqdm>=1, tqdm==999.*"]
    assert (made.checkout, installed(made, "tqdm")) == (repository, "999.0")
    assert [path for path in (cache / "environments").iterdir() if path.is_dir()] == [made.python.parents[1]]
    assert not (made.python.parents[1] / "half").exists()
    fixed = (made.python.parents[1] / "constraints.txt").read_text().splitlines()
    assert f"psutil=={version('psutil')}" in fixed
    assert not [line for line in fixed if line.startswith("tqdm==")]

    assert prepare(side, repository, cache, refuse) == made


@pytest.mark.usefixtures("two_tqdms")
def test_a_commit_has_its_files_and_the_dependencies_that_it_stated_in_the_versions_that_are_here(
    repository: Path, commit: Commit, tmp_path: Path
) -> None:
    commit({"pyproject.toml": DEPENDENT, "folder/file": "first"})
    commit({"folder/file": "second"})
    (repository / "folder" / "file").write_text("uncommitted")
    (repository / "pyproject.toml").write_text(PROJECT)
    first, second = parse("HEAD~1..HEAD", repository)
    made = prepare(first, repository, tmp_path / "cache", lambda _: None)
    assert (made.checkout / "folder" / "file").read_text() == "first"
    assert installed(made, "tqdm") == version("tqdm")
    other = prepare(second, repository, tmp_path / "cache", lambda _: None)
    assert (other.checkout / "folder" / "file").read_text() == "second"
    assert other.python == made.python
    for again in (first, second):
        prepare(again, repository, tmp_path / "cache", refuse)


def test_what_differs_in_anything_has_an_environment_of_its_own(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "_make_environment", lambda *arguments: arguments[-1].mkdir())

    def python(requirement: str, project: str = PROJECT) -> Path:
        (repository / "pyproject.toml").write_text(project)
        return prepare(Side("A", requirement=requirement), repository, tmp_path / "cache", refuse).python

    differing = {python("tqdm==1"), python("tqdm==2"), python("tqdm==1", DEPENDENT)}
    monkeypatch.setattr(environments, "pins", lambda without: ["psutil==0"])
    differing.add(python("tqdm==1"))
    monkeypatch.setattr(sys, "version", "another")
    differing.add(python("tqdm==1"))
    assert len(differing) == 5
    assert python("tqdm==1") in differing


@pytest.mark.usefixtures("add_wheel")
def test_an_environment_that_cannot_be_made_is_one_line_and_leaves_nothing(repository: Path, tmp_path: Path) -> None:
    (repository / "pyproject.toml").write_text(PROJECT)
    side = Side("nothing-like-it>1", requirement="nothing-like-it>1")
    with pytest.raises(EnvironmentFailed) as raised:
        prepare(side, repository, tmp_path / "cache", lambda _: None)
    assert str(raised.value) == "nothing-like-it>1: pip: No matching distribution found for nothing-like-it>1"
    assert not [path for path in (tmp_path / "cache" / "environments").iterdir() if path.is_dir()]


def test_a_commit_without_a_project_is_refused(repository: Path, commit: Commit, tmp_path: Path) -> None:
    commit({"pyproject.toml": "[project"})
    with pytest.raises(EnvironmentFailed, match=r"\Amain: its pyproject\.toml cannot be read: [^\n]*\Z"):
        prepare(parse("main", repository)[0], repository, tmp_path / "cache", lambda _: None)


def test_a_commit_that_git_cannot_give_leaves_no_checkout(repository: Path, commit: Commit, tmp_path: Path) -> None:
    commit({"pyproject.toml": PROJECT})
    with pytest.raises(EnvironmentFailed, match=r"\Alost: git archive: "):
        prepare(Side("lost", commit="0" * 40), repository, tmp_path / "cache", lambda _: None)
    assert not [path for path in (tmp_path / "cache" / "checkouts").iterdir() if path.is_dir()]
