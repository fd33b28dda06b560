import re
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from bench.versus.conftest import AddWheel
from bench.versus.uv import UvFailed, environment_python, pins

# Makes an environment of what is wanted, as far as it is fixed; gives its Python and the message about it.
Make = Callable[[list[str], list[str]], tuple[Path, str | None]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return lambda wanted, fixed: environment_python(wanted, fixed, tmp_path / "uv", tmp_path / "constraints")


def installed(python: Path, module: str) -> str:
    command = (str(python), "-I", "-c", f"import {module}; print({module}.VERSION)")
    return subprocess.run(command, text=True, capture_output=True, check=True).stdout.strip()


def test_the_running_environment_is_pinned_but_for_what_is_left_out() -> None:
    found = pins(without=[])
    assert f"psutil=={version('psutil')}" in found
    # It calls itself `typing_extensions`.
    left_out = f"typing-extensions=={version('typing_extensions')}"
    assert set(found) - set(pins(without=["Typing.Extensions<9", ""])) == {left_out}


def test_what_is_fixed_is_installed_and_not_what_is_newest(make: Make, add_wheel: AddWheel) -> None:
    for number in ("1.0", "2.0"):
        add_wheel("plain", number)
    python, message = make(["plain"], ["plain==1.0", "unheard_of==7"])
    assert (installed(python, "plain"), message) == ("1.0", None)


def test_a_local_version_that_no_index_has_is_the_public_one(make: Make, add_wheel: AddWheel) -> None:
    for number in ("1.0", "2.0"):
        add_wheel("local", number)
    python, message = make(["local"], ["local==1.0+cpu"])
    assert installed(python, "local") == "1.0"
    assert "public ones count" in str(message)


def test_where_nothing_fits_what_is_here_it_is_said(make: Make, add_wheel: AddWheel) -> None:
    add_wheel("beneath", "1.0")
    add_wheel("beneath", "2.0")
    add_wheel("above", "1.0", requires=("beneath>=2",))
    python, message = make(["above"], ["beneath==1.0"])
    assert installed(python, "beneath") == "2.0"
    assert (
        message == "uv finds nothing that fits the versions of this environment: all that it needs may differ from here"
    )


def test_what_cannot_be_at_all_is_one_line(make: Make, add_wheel: AddWheel) -> None:
    add_wheel("single", "1.0")
    for wanted in (["single==9.*"], ["single==1.0", "single>=2"]):
        with pytest.raises(UvFailed) as raised:
            make(wanted, [])
        assert re.fullmatch(r"uv: No solution found when [^\n]*: Because [^\n]*single[^\n]*", str(raised.value))


def test_a_failure_that_other_versions_do_not_mend_is_not_tried_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def fail(command: tuple[str, ...], **options: object) -> "subprocess.CompletedProcess[str]":
        tried.append(command)
        error = "error: Request failed\n  cause: Failed to fetch\n         this\n\nhint: retry\n"
        return subprocess.CompletedProcess(command, 1, "", error)

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(UvFailed, match=r"\Auv: Request failed: Failed to fetch this\Z"):
        make(["plain"], ["plain==1.0"])
    assert len(tried) == 1
