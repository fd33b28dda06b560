import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from bench.versus.conftest import AddWheel
from bench.versus.pip import PipFailed, install, pins

# Installs what is wanted as far as it is fixed; gives what is said of it.
Install = Callable[[list[str], list[str]], str | None]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run((sys.executable, "-I", "-m", "venv", "--without-pip", str(folder)), check=True)
    return folder / "bin" / "python"


@pytest.fixture
def installed(python: Path) -> Callable[[str], str]:
    def get(module: str) -> str:
        command = (str(python), "-I", "-c", f"import {module}; print({module}.VERSION)")
        return subprocess.run(command, text=True, capture_output=True, check=True).stdout.strip()

    return get


def test_the_running_environment_is_pinned_but_for_what_is_left_out() -> None:
    found = pins(without=[])
    assert f"psutil=={version('psutil')}" in found
    # It calls itself `typing_extensions`.
    left_out = f"typing-extensions=={version('typing_extensions')}"
    assert set(found) - set(pins(without=["Typing.Extensions<9", ""])) == {left_out}


def test_what_is_fixed_is_installed_and_not_what_is_newest(
    python: Path, installed: Callable[[str], str], add_wheel: AddWheel, tmp_path: Path
) -> None:
    for number in ("1.0", "2.0"):
        add_wheel("plain", number)
    assert install(python, ["plain"], ["plain==1.0", "unheard_of==7"], tmp_path / "constraints") is None
    assert installed("plain") == "1.0"


def test_a_local_version_that_no_index_has_is_the_public_one(
    python: Path, installed: Callable[[str], str], add_wheel: AddWheel, tmp_path: Path
) -> None:
    for number in ("1.0", "2.0"):
        add_wheel("local", number)
    told = install(python, ["local"], ["local==1.0+cpu"], tmp_path / "constraints")
    assert installed("local") == "1.0"
    assert told is not None
    assert "public ones count" in told


def test_where_nothing_fits_what_is_here_it_is_said(
    python: Path, installed: Callable[[str], str], add_wheel: AddWheel, tmp_path: Path
) -> None:
    add_wheel("beneath", "1.0")
    add_wheel("beneath", "2.0")
    add_wheel("above", "1.0", requires=("beneath>=2",))
    told = install(python, ["above"], ["beneath==1.0"], tmp_path / "constraints")
    assert installed("beneath") == "2.0"
    assert (
        told == "pip finds nothing that fits the versions of this environment: all that it needs may differ from here"
    )


def test_what_cannot_be_at_all_is_one_line(python: Path, add_wheel: AddWheel, tmp_path: Path) -> None:
    add_wheel("single", "1.0")
    with pytest.raises(PipFailed, match=r"\Apip: No matching distribution found for single==9\.\*\Z"):
        install(python, ["single==9.*"], [], tmp_path / "constraints")
    with pytest.raises(PipFailed, match=r"\Apip: Cannot install [^\n]* conflicting dependencies\.\Z"):
        install(python, ["single==1.0", "single>=2"], [], tmp_path / "constraints")


def test_a_failure_that_other_versions_do_not_mend_is_not_tried_again(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def fail(command: tuple[str, ...], **options: object) -> "subprocess.CompletedProcess[str]":
        tried.append(command)
        return subprocess.CompletedProcess(command, 1, "", "ERROR: Could not install: [Errno 28] No space left\n\n")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(PipFailed, match=r"\Apip: Could not install: \[Errno 28\] No space left\Z"):
        install(python, ["plain"], ["plain==1.0"], tmp_path / "constraints")
    assert len(tried) == 1
