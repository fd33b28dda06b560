import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.conftest import environment_of
from bench.selftest.documents.markdown import ROOT, documented

SOURCES = ("bench", "model", "conftest.py", "pyproject.toml")

Typed = Callable[..., str]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with links to the sources, and with records of its own."""
    for name in SOURCES:
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.fixture
def typed(checkout: Path) -> Typed:
    """Runs a documented command in `checkout` as it stands there, and returns what it prints.

    `more` is appended: later options override earlier ones. Fails if the exit status is not 0.
    """
    environment = environment_of(checkout, "") | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(checkout / "cache"),
    }

    def run(command: str, more: str = "") -> str:
        documented(command)
        done = subprocess.run(  # noqa: S602 - as a user types it
            f"{command} {more}",
            shell=True,
            cwd=checkout,
            env=environment,
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def columns(printed: str, *names: str) -> dict[str, list[str]]:
    """Return some columns of the table that a run printed, or that a document shows, by strategy."""
    lines = [re.split(r" {2,}", line) for line in printed.splitlines()]
    [heading] = [line for line in lines if line[0] == "strategy" and set(names) <= set(line)]
    places = [heading.index(name) for name in names]
    rows = [line for line in lines if line[0] and len(line) == len(heading) and line != heading]
    return {row[0]: [row[place] for place in places] for row in rows}
