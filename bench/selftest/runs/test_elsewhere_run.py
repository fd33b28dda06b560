"""Runs from a project of the user's, which has settings for pytest, and folders like those of the suite."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.conftest import ROOT, environment_of
from model.installation import NAME, PACKAGE

MINE = """
import torch


def net():
    return torch.nn.Sequential(torch.nn.Linear(64, 300), torch.nn.Linear(300, 10))
"""

COMMAND = Path(sys.executable).with_name(NAME)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a project whose settings and conftest.py would end a run that reads them."""
    folder = tmp_path / "project"
    for name in ("model", "bench", "nets", "weights"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("" if name == "nets" else "raise RuntimeError('not mine')\n")
    (folder / "conftest.py").write_text("raise RuntimeError('not the suite')\n")
    (folder / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = "--nobody-knows-this"\n')
    (folder / "nets" / "small.py").write_text(MINE)
    return folder


def run(project: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    options = ["--model", "nets.small:net", "--strategies", "mmap_assign", "-k", "peak_memory"]
    options += ["--checkpoint-dir", "../checkpoints"]
    plugins = project.parent / "plugins"
    environment = environment_of(project.parent, "") | {"PYTHONPATH": str(plugins), "XDG_CACHE_HOME": str(plugins)}
    return subprocess.run([*words, *options], cwd=project, env=environment, text=True, capture_output=True, check=False)


def files(folder: Path) -> set[str]:
    found = (str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    return {name for name in found if "__pycache__" not in name and ".pytest_cache" not in name}


def check(done: "subprocess.CompletedProcess[str]", project: Path, before: set[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    assert "net " in done.stdout
    new = files(project) - before
    [record] = [name for name in new if name.endswith(".json")]
    assert record.startswith("weight-loading/")
    assert new - {record} <= {"weights/index.html"}


def test_pytest_on_the_suite_is_run_from_a_project_with_settings_of_its_own(project: Path) -> None:
    """The first path is one of the project's, so that pytest reads the settings that are next to it."""
    (project / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (project / "conftest.py").unlink()
    before, of_suite = files(project), files(ROOT / "results")
    done = run(project, sys.executable, "-P", "-m", "pytest", "--report", "weights", str(ROOT / "bench"))
    check(done, project, before)
    assert f"rootdir: {ROOT}\n" in done.stdout
    assert files(ROOT / "results") == of_suite


@pytest.mark.skipif(not COMMAND.exists(), reason=f"wants {NAME}: pip install .")
def test_the_command_needs_nothing_of_the_project(project: Path) -> None:
    which = "import importlib.util as u; print(u.find_spec('_weight_loading_bench').submodule_search_locations[0])"
    found = subprocess.run([sys.executable, "-c", which], cwd=project, text=True, capture_output=True, check=True)
    tree = Path(found.stdout.strip())
    assert tree.name == PACKAGE
    if any((tree / name).read_bytes() != (ROOT / name).read_bytes() for name in ("conftest.py", "pyproject.toml")):
        pytest.skip(f"{NAME} is of another checkout: pip install .")
    before, of_tree = files(project), files(tree)
    check(run(project, str(COMMAND), "--report", "weights"), project, before)
    assert files(tree) == of_tree
    # Neither is another's to import.
    for name in ("bench", "model"):
        there = [sys.executable, "-P", "-c", f"import importlib.util as u; assert u.find_spec({name!r}) is None"]
        assert subprocess.run(there, cwd=project, check=False).returncode == 0
    said = subprocess.run([str(COMMAND), "--version"], cwd=project, text=True, capture_output=True, check=True)
    assert re.fullmatch(rf"{NAME} \d+\.\d+\.\d+\n", said.stdout)
