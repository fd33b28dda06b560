"""Tests of the temporary folder of a run: it is removed at the end, and so are the folders of killed runs."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from model.run_folder import MARK, PREFIX, VARIABLE, remove_dead, run_folder

RUN = """
import os, signal, sys, tempfile
from multiprocessing import get_context
from pathlib import Path
from model.run_folder import begin_run_folder, run_folder

folder = begin_run_folder(Path(sys.argv[1]))
assert str(folder) == run_folder()
tempfile.mkdtemp(prefix="plan-", dir=run_folder())
child = get_context("forkserver").Process(target=print)
child.start()
child.join()
print(folder.name, *sorted(path.name.partition("-")[0] for path in folder.iterdir()), flush=True)
if "wait" in sys.argv:
    sys.stdin.read()
"""


def _start(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    environ = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", RUN, str(tmp_path), *arguments]
    return subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def short() -> Iterator[Path]:
    """Make a folder whose path leaves room for that of a socket."""
    with TemporaryDirectory() as folder:
        yield Path(folder)


def test_a_dead_run_leaves_its_folder_to_the_next_one(short: Path) -> None:
    killed = _start(short, "wait")
    assert killed.stdin
    assert killed.stdout
    assert killed.stdout.readline() == "\n"  # Of the child.
    there, *kept = killed.stdout.readline().split()
    assert kept == ["listener", "of", "plan"]

    # As long as it lives, another run lets it be.
    other = _start(short)
    assert other.communicate(timeout=30)
    assert [path.name for path in short.iterdir()] == [there]

    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert [path.name for path in short.iterdir()] == [there]
    assert _start(short).communicate(timeout=30)
    assert list(short.iterdir()) == []


def test_where_a_socket_would_not_fit_multiprocessing_has_a_folder_of_its_own(short: Path) -> None:
    parent = short / ("x" * (60 - len(str(short))))
    parent.mkdir()
    run = _start(parent)
    assert "listener" in run.communicate(timeout=30)[0]
    longer = short / ("x" * (75 - len(str(short))))
    longer.mkdir()
    assert "listener" not in _start(longer).communicate(timeout=30)[0]


def test_only_folders_of_runs_are_removed(tmp_path: Path) -> None:
    own = tmp_path / f"{PREFIX}a_b1c2d3"
    of_others = ["weight-loading-bench", f"{PREFIX}12345678", f"{PREFIX}of-mine", "pymp-12345678"]
    for name in (own.name, *of_others):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    (own / MARK).touch()
    (tmp_path / f"{PREFIX}00000000").mkdir()
    (tmp_path / f"{PREFIX}11111111").symlink_to(tmp_path / of_others[0])
    remove_dead(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*of_others, f"{PREFIX}11111111"}
    assert all((tmp_path / name / "file").exists() for name in of_others)


def test_what_is_half_removed_is_removed_by_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / f"{PREFIX}12345678"
    (folder / "plan-1").mkdir(parents=True)
    (folder / MARK).touch()

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", die)
        with pytest.raises(KeyboardInterrupt):
            remove_dead(tmp_path)
    assert folder.exists()
    (folder / "a-file").touch()
    remove_dead(tmp_path)
    assert not folder.exists()


def test_folders_of_other_users_are_let_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / f"{PREFIX}12345678"
    folder.mkdir()
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    remove_dead(tmp_path)
    assert folder.exists()


def test_without_a_run_files_are_where_the_system_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "gone"))
    assert run_folder() is None
    monkeypatch.delenv(VARIABLE)
    assert run_folder() is None
