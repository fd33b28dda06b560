from dataclasses import replace
from pathlib import Path
from unittest import SkipTest

import pytest
import torch
from hypothesis import Phase, settings
from hypothesis.database import DirectoryBasedExampleDatabase

from bench.conformance.blueprint import Blueprint, PlaceName, Stored
from bench.conformance.conformance_case import ConformanceCase
from bench.conformance.judge import BUILDS_ITS_OWN, CellStatus, judge
from bench.conformance.misfits import MisfitCheckpoint
from bench.conformance.profiles import EXAMPLES
from bench.conformance.properties import PROPERTIES
from bench.conformance.sweep import SHARES, Cell, sweep
from bench.selftest import mutants
from bench.strategies import STRATEGIES, Bounds, Strategy
from bench.strategies.mmap_assign import mmap_assign

CPU = torch.device("cpu")

PASSED = Cell("mmap_assign", "plain", CellStatus.PASSED, 9)
REFUSED = Cell("mmap_assign", "plain", CellStatus.REFUSED, 9, "weight: parameter", "ValueError: weight")
WRONG = Cell("mmap_assign", "plain", CellStatus.WRONG, 9, "weight: parameter", "weight is still on meta", ("meta",))


@pytest.mark.parametrize(
    ("name", "device", "cell", "breach"),
    [
        ("plain", "cpu", PASSED, None),
        ("plain", "cpu", REFUSED, "refused, of which its row in the table of strategies says nothing"),
        ("plain", "cpu", WRONG, "silently wrong"),
        ("views", "cpu", REFUSED, None),
        ("views", "cpu", PASSED, "passed, where its row in the table of strategies says that it refuses"),
        ("views", "cpu", replace(REFUSED, named=False), "refused without the name of a tensor"),
        ("missing", "cpu", REFUSED, None),
        ("missing", "cpu", replace(REFUSED, named=False), "refused without the name of a tensor"),
        ("missing", "cpu", WRONG, "silently wrong"),
    ],
)
def test_a_cell_is_held_against_the_table_of_strategies(name: str, device: str, cell: Cell, breach: str | None) -> None:
    case = ConformanceCase("per_tensor", name, device)
    found = case.breach(cell)
    assert (found and found.splitlines()[0]) == (breach and f"per_tensor-{name}-{device}: {breach}")
    if cell is WRONG:
        assert found is not None
        assert found.splitlines()[1:] == ["weight is still on meta", "The smallest model: weight: parameter"]


def test_what_a_loader_of_the_users_does_with_drawn_models_fails_no_test() -> None:
    mine = Strategy(mmap_assign, "torch", Bounds(), is_users=True)
    cells = [replace(cell, is_own=True, property="dtype") for cell in (PASSED, REFUSED, WRONG)]
    cells.append(replace(cells[-1], outcome=CellStatus.DIED))
    case, tolerating = (
        ConformanceCase("mmap_assign", "dtype", "cpu", mine, is_tolerated) for is_tolerated in (False, True)
    )
    assert [case.breach(cell) for cell in cells] == [None] * 4
    assert [case.tolerated(cell).outcome for cell in cells] == [cell.outcome for cell in cells]
    assert [tolerating.tolerated(cell).outcome.value for cell in cells] == ["passed", "refused", *["tolerated"] * 2]
    # What the suite's own strategies do is never tolerated.
    assert tolerating.tolerated(WRONG) == WRONG


def test_of_a_loader_of_the_users_one_property_is_shrunk_and_none_is_tried_in_vain() -> None:
    mine = Strategy(mmap_assign, "torch", Bounds(), is_users=True)
    case = ConformanceCase("mmap_assign", "dtype", "cpu", mine)
    right, refused, wrong = (replace(cell, is_own=True) for cell in (PASSED, REFUSED, WRONG))
    died = replace(wrong, outcome=CellStatus.DIED, why="the load was ended")
    assert case.shrinks(
        [right, refused, replace(wrong, strategy="another"), replace(wrong, outcome=CellStatus.TOLERATED)]
    )
    assert not case.shrinks([right, wrong])
    assert not replace(case, is_tolerated=True).shrinks([])
    assert case.stop_reason([right, refused, wrong]) is None
    assert case.stop_reason([replace(died, is_own=False)]) is None
    assert case.stop_reason([right, died]) == "not tried, for with models of plain the load was ended"
    apart = replace(refused, why=f"BuildUnused: {BUILDS_ITS_OWN}")
    assert case.stop_reason([apart]) == f"not tried: mmap_assign {BUILDS_ITS_OWN}"


def test_what_a_strategy_refuses_may_depend_on_where_it_loads_to() -> None:
    baseline = STRATEGIES["baseline"]
    assert baseline.refused("cpu") == frozenset()
    assert baseline.refused("cuda") == {"views", "gaps"}


ONE = Blueprint((Stored(),), (PlaceName("weight"),))


def raising(build: object, path: Path, device: torch.device) -> torch.nn.Module:
    raise ValueError(f"{path}\nis   not for me")


def test_an_error_is_told_in_a_line_without_the_folder() -> None:
    verdict = judge(raising, "torch", ONE, CPU)
    assert verdict.outcome == CellStatus.REFUSED
    assert verdict.why == "ValueError: checkpoint.pt is not for me"
    assert not verdict.named


@pytest.mark.parametrize("kind", ["missing", "surplus", "dtype", "shape"])
def test_a_refusal_names_what_does_not_fit(kind: str) -> None:
    verdict = judge(mmap_assign, "torch", MisfitCheckpoint(ONE, kind, "weight"), CPU, fits=False)
    assert (verdict.outcome, verdict.named) == (CellStatus.REFUSED, True)
    differ = "dtypes: " if kind == "dtype" else "names, dtypes, shapes, "
    assert verdict.why.startswith(f"ValueError: checkpoint.pt and the model differ in {differ}")


def test_a_find_is_replayed_the_next_time(tmp_path: Path) -> None:
    """A find of one profile by night is the first example of another one by day."""
    strategy = Strategy(mutants.untied_if_frozen, "torch", Bounds("S", "S", "S", "0", "0"))
    database = DirectoryBasedExampleDatabase(tmp_path)
    by_night = sweep(strategy, PROPERTIES["frozen"], CPU, settings(max_examples=2000, database=database))
    replay = settings(max_examples=round(SHARES), database=database, phases=[Phase.reuse])
    by_day = sweep(strategy, PROPERTIES["frozen"], CPU, replay)
    assert (by_day.outcome, by_day.example) == (CellStatus.WRONG, by_night.example)
    # Tried, and tried once more to be sure.
    assert by_day.examples <= 2 < by_night.examples
    another = settings(replay, database=DirectoryBasedExampleDatabase(tmp_path / "another"))
    with pytest.raises(SkipTest, match="no test cases"):
        sweep(strategy, PROPERTIES["frozen"], CPU, another)


def test_profiles() -> None:
    assert EXAMPLES["dev"] < EXAMPLES["ci"] < EXAMPLES["nightly"] == 2000
    for name, examples in EXAMPLES.items():
        profile = settings.get_profile(name)
        assert profile.max_examples == examples
        assert profile.database is not None
