import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pytest

from bench.versus import environments
from bench.versus.conftest import AddWheel, Commit
from bench.versus.environments import Environment, EnvironmentFailed, prepare
from bench.versus.sides import HERE, Side, parse

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
    assert prepare(here, tmp_path, tmp_path / "cache", tmp_path, refuse) == Environment(
        here, Path(sys.executable), tmp_path
    )
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("two_tqdms")
def test_the_environment_of_a_requirement_is_made_once_and_made_again_where_it_is_gone(
    repository: Path, tmp_path: Path
) -> None:
    (repository / "pyproject.toml").write_text(DEPENDENT)
    side, cache = Side("tqdm==999.*", requirement="tqdm==999.*"), tmp_path / "cache"
    said: list[str] = []
    made = prepare(side, repository, cache, tmp_path, said.append)
    making = "tqdm==999.*: making an environment with tqdm>=1, tqdm==999.*"
    assert said == [making]
    assert (made.checkout, installed(made, "tqdm")) == (repository, "999.0")
    [constraints] = (cache / "environments").glob("*.constraints")
    fixed = constraints.read_text().splitlines()
    assert f"psutil=={version('psutil')}" in fixed
    assert not [line for line in fixed if line.startswith("tqdm==")]

    assert prepare(side, repository, cache, tmp_path, refuse) == made
    shutil.rmtree(cache / "environments" / "uv")
    assert installed(prepare(side, repository, cache, tmp_path, said.append), "tqdm") == "999.0"
    assert said == [making] * 2


@pytest.mark.usefixtures("two_tqdms")
def test_a_commit_has_its_files_and_the_dependencies_that_it_stated_in_the_versions_that_are_here(
    repository: Path, commit: Commit, tmp_path: Path
) -> None:
    commit({"pyproject.toml": DEPENDENT, "folder/file": "first"})
    commit({"folder/file": "second"})
    (repository / "folder" / "file").write_text("uncommitted")
    (repository / "pyproject.toml").write_text(PROJECT)
    first, second = parse("HEAD~1..HEAD", repository)
    made = prepare(first, repository, tmp_path / "cache", tmp_path, lambda _: None)
    assert (made.checkout / "folder" / "file").read_text() == "first"
    assert installed(made, "tqdm") == version("tqdm")
    other = prepare(second, repository, tmp_path / "cache", tmp_path, lambda _: None)
    assert (other.checkout / "folder" / "file").read_text() == "second"
    assert other.python == made.python
    for again in (first, second):
        prepare(again, repository, tmp_path / "cache", tmp_path / "again", refuse)


def test_what_differs_in_anything_has_an_environment_of_its_own(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(wanted: Sequence[str], fixed: Sequence[str], cache: Path, constraints: Path) -> tuple[Path, None]:
        python = constraints.with_suffix(".made")
        python.touch()
        return python, None

    monkeypatch.setattr(environments, "environment_python", make)

    def python(requirement: str, project: str = PROJECT) -> Path:
        (repository / "pyproject.toml").write_text(project)
        return prepare(
            Side("A", requirement=requirement), repository, tmp_path / "cache", tmp_path, lambda _: None
        ).python

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
        prepare(side, repository, tmp_path / "cache", tmp_path, lambda _: None)
    assert re.fullmatch(
        r"nothing-like-it>1: uv: No solution found [^\n]*nothing-like-it was not found[^\n]*", str(raised.value)
    )
    assert not list((tmp_path / "cache" / "environments").glob("*.python"))


def test_a_commit_without_a_project_is_refused(repository: Path, commit: Commit, tmp_path: Path) -> None:
    commit({"pyproject.toml": "[project"})
    with pytest.raises(EnvironmentFailed, match=r"\Amain: its pyproject\.toml cannot be read: [^\n]*\Z"):
        prepare(parse("main", repository)[0], repository, tmp_path / "cache", tmp_path, lambda _: None)


def test_a_commit_that_git_cannot_give_is_refused(repository: Path, commit: Commit, tmp_path: Path) -> None:
    commit({"pyproject.toml": PROJECT})
    with pytest.raises(EnvironmentFailed, match=r"\Alost: git archive: "):
        prepare(Side("lost", commit="0" * 40), repository, tmp_path / "cache", tmp_path, lambda _: None)
