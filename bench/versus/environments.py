"""The Python environment and the checkout that a side is run from, made once and found again."""

import fcntl
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from bench.versus.pip import HAS_PIP, PipFailed, install, pins
from bench.versus.sides import Side
from model.disk import remove_unfinished, wait_for, written_aside

Say = Callable[[str], None]


@dataclass(frozen=True)
class Environment:
    """What a side is run with, and the folder that it is run in."""

    side: Side
    python: Path
    checkout: Path


class EnvironmentFailed(Exception):
    """A side cannot be set up: one line that names it, and says why."""


def prepare(side: Side, root: Path, cache: Path, say: Say) -> Environment:
    """The environment of a side, made below `cache` if it is not there yet. Raises `EnvironmentFailed`.

    What is here is run as it is. Any other side gets the dependencies that its checkout states, in the versions
    that are installed here; what is installed here beside them (NumPy, say), it does not get. What a requirement
    such as `torch==2.12.*` stands for is decided when its environment is made.
    """
    checkout = root if side.commit is None else _checkout(side, root, cache / "checkouts", say)
    if side.commit is None and side.requirement is None:
        return Environment(side, Path(sys.executable), checkout)
    wanted = _project(side, checkout).get("dependencies", []) + ([side.requirement] if side.requirement else [])
    own_name = _project(side, root).get("name", "")
    fixed = pins(without=[own_name] if side.requirement is None else [own_name, side.requirement])
    key = _digest(sys.version, sys.base_prefix, *sorted(wanted), "", *fixed)
    make = partial(_make_environment, side, wanted, fixed, say)
    return Environment(side, _made(cache / "environments" / key, make, say) / "bin" / "python", checkout)


def _checkout(side: Side, root: Path, folder: Path, say: Say) -> Path:
    """The files of a commit: those below `root`, where that is not the whole repository."""
    return _made(folder / _digest(str(side.commit), str(root.resolve())), partial(_extract, side, root), say)


def _extract(side: Side, root: Path, folder: Path) -> None:
    with TemporaryFile() as archive:
        command = ("git", "archive", "--format=tar", str(side.commit))
        done = subprocess.run(command, cwd=root, stdout=archive, stderr=subprocess.PIPE, check=False)
        if done.returncode:
            raise EnvironmentFailed(f"{side.name}: git archive: {done.stderr.decode(errors='replace').strip()}")
        archive.seek(0)
        try:
            with tarfile.open(fileobj=archive) as files:
                files.extractall(folder, filter="data")
        except tarfile.TarError as error:
            raise EnvironmentFailed(f"{side.name}: its files cannot be written: {error}") from None


def _project(side: Side, checkout: Path) -> dict[str, Any]:
    try:
        return tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    except (OSError, ValueError) as error:
        raise EnvironmentFailed(f"{side.name}: its pyproject.toml cannot be read: {error}") from None


def _make_environment(side: Side, wanted: Sequence[str], fixed: Sequence[str], say: Say, folder: Path) -> None:
    say(f"{side.name}: making an environment with {', '.join(wanted) or 'nothing'}")
    # Isolated: what PYTHONPATH holds is not installed, but pip would take it to be.
    # The pip that runs here installs into it: one of its own takes seconds to unpack.
    command = (sys.executable, "-I", "-m", "venv", *(("--without-pip",) if HAS_PIP else ()), str(folder))
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise EnvironmentFailed(f"{side.name}: python -m venv: {' '.join(done.stdout.split())}")
    try:
        if told := install(folder / "bin" / "python", wanted, fixed, folder / "constraints.txt"):
            say(f"{side.name}: {told}")
    except PipFailed as error:
        raise EnvironmentFailed(f"{side.name}: {error}") from None


def _made(folder: Path, make: Callable[[Path], None], say: Say) -> Path:
    """`folder`, made if it is not there: under another name first, so that it is whole when it has its own.

    The scripts of an environment that is renamed name a Python that is gone: everything is run with `python -m`.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder.parent)
    with folder.with_name(f"{folder.name}.lock").open("ab") as lock:
        wait_for(lock, fcntl.LOCK_EX, lambda: say(f"{folder.name}: waiting for another run that makes it"))
        if not folder.exists():
            with written_aside(folder) as unfinished:
                make(unfinished)
    return folder


def _digest(*parts: str) -> str:
    return sha256("\0".join(parts).encode()).hexdigest()[:16]
