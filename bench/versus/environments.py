"""The Python environment and the checkout that a side is run from."""

import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from bench.versus.sides import Side
from bench.versus.uv import UvFailed, environment_python, pins

Say = Callable[[str], None]


@dataclass(frozen=True)
class Environment:
    """The Python of a side, and the folder that it is run in."""

    side: Side
    python: Path
    checkout: Path


class EnvironmentFailed(Exception):
    """A side cannot be set up: one line with its name and the reason."""


def prepare(side: Side, root: Path, cache: Path, checkouts: Path, say: Say) -> Environment:
    """Extract the commit of a side below `checkouts`, and make its environment below `cache` if it is not there yet.

    The running environment serves this checkout as it is. Any other side gets the dependencies that its checkout
    states, in the versions that are installed here, and no other packages (NumPy, say). The version that a requirement
    such as `torch==2.12.*` stands for is decided when its environment is made. Raises `EnvironmentFailed`.
    """
    checkout = root if side.commit is None else _checkout(side, root, checkouts)
    if side.commit is None and side.requirement is None:
        return Environment(side, Path(sys.executable), checkout)
    wanted = _project(side, checkout).get("dependencies", []) + ([side.requirement] if side.requirement else [])
    own_name = _project(side, root).get("name", "")
    fixed = pins(without=[own_name] if side.requirement is None else [own_name, side.requirement])
    stem = cache / "environments" / _digest(sys.version, sys.base_prefix, *sorted(wanted), "", *fixed)
    made = stem.with_suffix(".python")
    if not made.exists() or not Path(made.read_text(encoding="utf-8")).exists():
        say(f"{side.name}: making an environment with {', '.join(wanted) or 'nothing'}")
        stem.parent.mkdir(parents=True, exist_ok=True)
        try:
            python, message = environment_python(wanted, fixed, stem.with_name("uv"), stem.with_suffix(".constraints"))
        except UvFailed as error:
            raise EnvironmentFailed(f"{side.name}: {error}") from None
        if message:
            say(f"{side.name}: {message}")
        made.write_text(str(python), encoding="utf-8")
    return Environment(side, Path(made.read_text(encoding="utf-8")), checkout)


def _checkout(side: Side, root: Path, checkouts: Path) -> Path:
    """Extract the files of a commit: those below `root`, where that is not the whole repository."""
    folder = checkouts / str(side.commit)
    with TemporaryFile() as archive:
        command = ("git", "archive", "--format=tar", str(side.commit))
        done = subprocess.run(command, cwd=root, stdout=archive, stderr=subprocess.PIPE, check=False)
        if done.returncode:
            raise EnvironmentFailed(f"{side.name}: git archive: {done.stderr.decode(errors='replace').strip()}")
        archive.seek(0)
        try:
            with tarfile.open(fileobj=archive) as files:
                # Python before 3.11.4 has no filters, and no argument for them.
                files.extraction_filter = getattr(tarfile, "data_filter", None)
                files.extractall(folder)  # noqa: S202 - they are the repository's own
        except tarfile.TarError as error:
            raise EnvironmentFailed(f"{side.name}: its files cannot be written: {error}") from None
    return folder


def _project(side: Side, checkout: Path) -> dict[str, Any]:
    try:
        return tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    except (OSError, ValueError) as error:
        raise EnvironmentFailed(f"{side.name}: its pyproject.toml cannot be read: {error}") from None


def _digest(*parts: str) -> str:
    return sha256("\0".join(parts).encode()).hexdigest()[:16]
