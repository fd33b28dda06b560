"""The conformance of other projects' loaders, as users ask for it."""

import re
from pathlib import Path

from bench.cases.conftest import Bench


def test_the_conformance_of_another_projects_loader_is_no_failure_where_it_is_known(bench: Bench, folder: Path) -> None:
    run = bench(
        *("--strategies", "dcp", "--device", "cpu", "--conformance", "--benchmark-disable"),
        *("-k", "load_time or (equivalence and (plain or surplus or nonpersistent))"),
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "dcp, surplus: WRONG: was loaded without an error" in run.stdout
    [example] = re.findall(r"dcp, surplus: WRONG.*\n +(.*)", run.stdout)
    assert example.endswith("has one beside it that the model has not")
    # Tests record nothing.
    assert not list(folder.rglob("*_*.json"))
