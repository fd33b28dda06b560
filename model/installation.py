"""The place that the suite runs from, a checkout or an installed package, and what a user types there."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The distribution, and the command that it installs.
NAME = "weight-loading-bench"
# The folder of a wheel that has the tree: see `pyproject.toml`.
PACKAGE = "_weight_loading_bench"


def is_installed() -> bool:
    """Return True if the suite runs as an installed package, and not from a checkout."""
    return ROOT.name == PACKAGE


def pip_install(extra: str) -> str:
    """Return the command that installs an extra of the suite."""
    here = not is_installed() and Path.cwd() == ROOT
    return f"pip install '{'.' if here else NAME}[{extra}]'"


def started(root: Path) -> tuple[str, ...]:
    """Return the words that start a run of the tree in `root` from the current folder, such as `pytest bench`."""
    if is_installed():
        return (NAME,)
    folder = root / "bench"
    return ("pytest", min(os.path.relpath(folder), str(folder), key=len))
