"""Loaders that end the process they are tried in, or never come back, end their own cell of the table."""

import multiprocessing
import re
from pathlib import Path

import pytest

from bench.conformance import isolated_runner as apart_module
from bench.conformance.conformance_case import ConformanceCase
from bench.conformance.isolated_runner import IsolatedRunner
from bench.conformance.judge import BUILDS_ITS_OWN, CellStatus
from bench.strategies import PEERS, Bounds, Strategy
from bench.strategies.lazy_recipe import LazyRecipe
from bench.strategies.peers import Peer
from bench.strategies.user_strategy import user_strategy
from model.user.reference import Reference

LOADERS = """
import ctypes, os, time
import torch

def right(build, path, device):
    model = build()
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.to(device)

def dies(build, path, device):
    ctypes.string_at(0)

def hangs(build, path, device):
    time.sleep(60)

class Odd(BaseException):
    pass

def raises(build, path, device):
    raise Odd("of no known kind")

def assigned(build, path, device):
    with torch.device("meta"):
        model = build()
    model.load_state_dict(torch.load(path, weights_only=True), assign=True)
    return model

def emptied(build, path, device):
    with torch.device("meta"):
        model = build()
    model = model.to_empty(device=device)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model

def evaluating(build, path, device):
    return right(build, path, device).eval()

def freezing(build, path, device):
    return right(build, path, device).requires_grad_(False)

def by_name(build, path, device):
    return right(build, path if path.endswith(".pt") else "", device)

def of_its_own(build, path, device):
    return torch.nn.Linear(1, 1)

def rounding(build, path, device):
    return right(build, path, device).bfloat16().float()
"""


@pytest.fixture
def strategy(tmp_path: Path, request: pytest.FixtureRequest) -> Strategy:
    file = tmp_path / "loaders.py"
    file.write_text(LOADERS)
    return of_another(f"{file}:{request.param}")


def of_another(reference: str) -> Strategy:
    peer = Peer("dcp", "torch", "real module", "load", "torch", wrong="optimizer")
    return Strategy(LazyRecipe(Reference(reference)), "torch", Bounds(), peer=peer)


def loader(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("strategy", [name], indirect=True)


@loader("right")
def test_one_process_tries_all_that_is_asked(strategy: Strategy) -> None:
    with IsolatedRunner() as apart:
        first = apart.cell(strategy, "plain", "cpu")
        processes = {child.pid for child in multiprocessing.active_children()}
        assert apart.cell(strategy, "ties", "cpu").outcome == first.outcome == CellStatus.PASSED
        assert {child.pid for child in multiprocessing.active_children()} == processes
        assert len(processes) == 1
    assert multiprocessing.active_children() == []


@loader("dies")
def test_a_loader_that_dies_has_a_cell_that_says_how_and_the_next_is_tried(strategy: Strategy) -> None:
    with IsolatedRunner() as apart:
        cell = apart.cell(strategy, "plain", "cpu")
        assert cell.outcome == CellStatus.DIED
        assert cell.why == "the process of the load died: killed by SIGSEGV, a segmentation fault"
        assert apart.cell(strategy, "ties", "cpu").why == cell.why
        right = of_another(strategy.load.reference.text.replace(":dies", ":right"))  # type: ignore[attr-defined]
        assert apart.cell(right, "plain", "cpu").outcome == CellStatus.PASSED


@loader("hangs")
def test_a_loader_that_hangs_is_ended(strategy: Strategy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart_module, "START_SECONDS", 1.5)
    monkeypatch.setattr(apart_module, "EXAMPLE_SECONDS", 0.0)
    with IsolatedRunner() as apart:
        cell = apart.cell(strategy, "plain", "cpu")
    assert (cell.outcome, cell.why) == (CellStatus.DIED, "the load was ended: it was not done within 1.5 s")


@loader("raises")
def test_whatever_a_loader_raises_is_a_refusal(strategy: Strategy) -> None:
    """There are libraries whose exceptions are no `Exception`."""
    with IsolatedRunner() as apart:
        cell = apart.cell(strategy, "plain", "cpu")
    assert (cell.outcome, cell.why) == (CellStatus.REFUSED, "Odd: of no known kind")


@loader("assigned")
def test_what_assigning_loses_is_one_property_and_not_every_one(strategy: Strategy) -> None:
    with IsolatedRunner() as apart:
        cells = {name: apart.cell(strategy, name, "cpu") for name in ("plain", "optimizer", "training", "memory")}
    assert {name for name, cell in cells.items() if cell.outcome == CellStatus.WRONG} == {"optimizer"}
    assert cells["optimizer"].why.endswith("(stepped by an optimizer that was made before the load)")
    # As small as hypothesis makes it, which need not be the smallest that there is: one parameter.
    assert re.fullmatch(r"(weight|bias)0: parameter float32\[[1-3]\]", cells["optimizer"].example or "")


@pytest.mark.parametrize(
    ("loader", "columns"),
    [
        ("emptied", {"optimizer"}),
        ("evaluating", {"training"}),
        ("freezing", {"optimizer", "training"}),
        ("by_name", set()),
    ],
)
def test_what_a_loader_of_the_users_changes_beside_values_is_a_property_of_its_own(
    tmp_path: Path, loader: str, columns: set[str]
) -> None:
    file = tmp_path / "loaders.py"
    file.write_text(LOADERS)
    mine = user_strategy(f"{file}:{loader}", None)
    with IsolatedRunner() as apart:
        cells = {name: apart.cell(mine, name, "cpu") for name in ("plain", "optimizer", "training", "memory")}
    assert {name for name, cell in cells.items() if cell.outcome != CellStatus.PASSED} == columns
    if loader == "emptied":
        assert "that was made before the load" in cells["optimizer"].why


@loader("of_its_own")
def test_a_loader_that_builds_a_model_of_its_own_is_not_tried_with_others(strategy: Strategy) -> None:
    with IsolatedRunner() as apart:
        cell = apart.cell(strategy, "plain", "cpu")
    assert (cell.outcome, cell.why) == (CellStatus.REFUSED, f"BuildUnused: {BUILDS_ITS_OWN}")


@pytest.mark.parametrize("shrinks", [True, False])
def test_a_smaller_model_is_looked_for_once(tmp_path: Path, shrinks: bool) -> None:
    file = tmp_path / "loaders.py"
    file.write_text(LOADERS)
    with IsolatedRunner() as apart:
        cell = apart.cell(user_strategy(f"{file}:rounding", None), "plain", "cpu", shrinks=shrinks)
    assert cell.outcome == CellStatus.WRONG
    assert cell.is_own
    assert (cell.examples > 1) == shrinks
    assert cell.example


@pytest.mark.parametrize(
    ("name", "outcome", "examples", "breach"),
    [
        ("plain", CellStatus.PASSED, 5, None),
        ("plain", CellStatus.REFUSED, 5, "refused, where its row in the table of strategies says passed"),
        ("plain", CellStatus.WRONG, 5, "WRONG, where its row in the table of strategies says passed"),
        ("plain", CellStatus.DIED, 0, "DIED, where its row in the table of strategies says passed"),
        ("training", CellStatus.DIED, 0, None),
        ("nonpersistent", CellStatus.WRONG, 5, None),
        ("nonpersistent", CellStatus.DIED, 5, "DIED, where its row in the table of strategies says WRONG"),
        # A few models may miss it.
        ("nonpersistent", CellStatus.PASSED, 5, None),
        ("nonpersistent", CellStatus.PASSED, 99, "passed, where its row in the table of strategies says WRONG"),
        ("ties", CellStatus.PASSED, 99, "passed, where its row in the table of strategies says refused"),
        ("surplus", CellStatus.REFUSED, 5, None),
        ("surplus", CellStatus.WRONG, 5, "WRONG, where its row in the table of strategies says refused"),
    ],
)
def test_a_cell_is_held_against_what_was_seen_of_that_version(
    name: str, outcome: CellStatus, examples: int, breach: str | None
) -> None:
    from bench.conformance.sweep import Cell  # noqa: PLC0415 - beside its use

    assert PEERS["flashpack"].peer
    found = ConformanceCase("flashpack", name, "cpu").breach(Cell("flashpack", name, outcome, examples))
    assert (found and found.partition("\n")[0].removesuffix(" with 99 models")) == (
        breach and f"flashpack-{name}-cpu: {breach}"
    )
