"""The shell steps of the action in `.github/actions/measure/`, in the order of its file."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.conftest import ROOT, environment_of
from model.installation import NAME

ACTION = ROOT / ".github" / "actions" / "measure"
INSTALL, MEASURE = re.findall(r"^      run: '(.*)'$", (ACTION / "action.yml").read_text(), re.MULTILINE)
COMMAND = Path(sys.executable).with_name(NAME)

MINE = """
import torch


def net():
    return torch.nn.Linear(64, 300)
"""

# Prints its arguments, one a line; Python that is given code runs it.
ECHO = f'#!/bin/sh\n[ "$1" != -c ] || exec {sys.executable} "$@"\nprintf "%s\\n" "$@"\n'

Step = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def step(tmp_path: Path) -> Step:
    """Return what runs a step as a job does; `programs` are found before those that are installed."""

    def run(line: str, *programs: str, **inputs: str) -> "subprocess.CompletedProcess[str]":
        (tmp_path / "programs").mkdir(exist_ok=True)
        for name in programs:
            (tmp_path / "programs" / name).write_text(ECHO)
            (tmp_path / "programs" / name).chmod(0o755)
        path = os.pathsep.join((str(tmp_path / "programs"), str(COMMAND.parent), os.environ["PATH"]))
        job = {"PATH": path, "GITHUB_ACTION_PATH": str(ACTION), "XDG_CACHE_HOME": str(tmp_path)}
        environment = environment_of(tmp_path, "") | job | inputs
        words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", line]
        return subprocess.run(words, cwd=tmp_path, env=environment, text=True, capture_output=True, check=False)

    return run


def test_it_installs_the_suite_and_what_the_model_needs(step: Step) -> None:
    done = step(INSTALL, "python3", PACKAGES="transformers>=5 'accelerate < 2'")
    packages = ["transformers>=5", "accelerate < 2"]
    assert done.stdout.splitlines() == ["-m", "pip", "install", "--quiet", f"{ROOT}[report]", *packages]
    assert step(INSTALL, "python3", PACKAGES="").stdout.splitlines()[-1] == f"{ROOT}[report]"


def test_options_are_split_as_a_shell_does_and_run_nothing(step: Step) -> None:
    said = step(
        MEASURE, NAME, MODEL="my llama", CHECKPOINT="", OPTIONS="--cast bfloat16 --allow-missing 'head.*' $(id)"
    )
    options = ["--cast", "bfloat16", "--allow-missing", "head.*", "$(id)"]
    assert said.stdout.splitlines() == ["--benchmark-compare", "--model", "my llama", *options]
    said = step(MEASURE, NAME, MODEL="net", CHECKPOINT="run 1.pt", OPTIONS="")
    assert said.stdout.splitlines() == ["--benchmark-compare", "--model", "net", "--checkpoint", "run 1.pt"]


def test_what_is_wrong_with_the_inputs_fails_the_job(step: Step) -> None:
    assert step(MEASURE, NAME, MODEL="").stderr == "model is empty: name a folder, or file.py:function\n"
    for inputs in ({"MODEL": ""}, {"MODEL": "net", "OPTIONS": "'not closed"}):
        assert step(MEASURE, NAME, **inputs).returncode != 0


@pytest.mark.skipif(not COMMAND.exists(), reason=f"wants {NAME}: pip install .")
def test_it_compares_with_the_run_before_and_writes_the_table_into_the_summary(step: Step, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    inputs = {"MODEL": "mine.py:net", "CHECKPOINT": "", "OPTIONS": "--strategies mmap_assign -k peak_memory"}
    printed = []
    for number in ("0001", "0002"):
        done = step(MEASURE, **inputs)
        assert done.returncode == 0, done.stdout + done.stderr
        assert len([*(tmp_path / "weight-loading").glob(f"*/{number}_*.json")]) == 1
        printed.append(done.stdout)
    assert ["NOT COMPARED" in one for one in printed] == [True, False]
    assert (tmp_path / "summary.md").read_text().count("| mmap_assign |") == len(printed)
