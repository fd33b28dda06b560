"""Other projects' loaders, as users ask for them: their conformance, and how they load a model of the user's."""

import re
from pathlib import Path

import pytest

from bench.conftest import Bench
from model.verification.test_verify import TIED


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


def test_peers_load_the_users_model_or_refuse_it_in_a_line(bench: Bench, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    (tmp_path / "mine.py").write_text(TIED)
    strategies = "safetensors,safetensors_load_model,dcp,instanttensor"
    loads = ("--model", f"{tmp_path / 'mine.py'}:tied", "--strategies", strategies, "-k", "peak_memory")
    for options in (("--device", "cpu"), ("--plan",)):
        run = bench(*loads, *options)
        assert run.returncode == 0, run.stdout + run.stderr
        assert "Traceback" not in run.stdout
        verdicts = dict(re.findall(r"(?m)^(\w+) +tied .* (\w+)$", run.stdout))
        loaded = ("safetensors_load_model", "dcp")
        assert verdicts == {"safetensors": "refused", "instanttensor": "skipped", **dict.fromkeys(loaded, "ok")}
        [why] = re.findall(r"safetensors-tied: (.*)", run.stdout)
        assert why.startswith("refused: it does not load tied weights: RuntimeError: ")
        assert 'Missing key(s) in state_dict: "head.weight"; ' in why
