from dataclasses import replace
from itertools import pairwise

import pytest

from bench.conformance.judge import CellStatus
from bench.conformance.properties import PROPERTIES
from bench.conformance.sweep import Cell
from bench.report.conformance import conformance_lines
from bench.strategies import STRATEGIES

CELLS = [
    Cell(
        strategy,
        name,
        CellStatus.PASSED if row.fits else CellStatus.REFUSED,
        10,
        "weight0: parameter",
        "ValueError: no",
    )
    for strategy in STRATEGIES
    for name, row in PROPERTIES.items()
]
FITTING = sum(row.fits for row in PROPERTIES.values())
WRONG = Cell(
    "baseline", "ties", CellStatus.WRONG, 3, "weight0 = weight1: parameter", "weight1 was tied\nso was weight2"
)


def changed(**outcome: CellStatus) -> list[Cell]:
    return [replace(cell, outcome=outcome.get(cell.property, cell.outcome)) for cell in CELLS]


@pytest.mark.parametrize("width", [44, 80, 120, 1000])
def test_the_table_fits_its_terminal_and_can_be_pasted(width: int) -> None:
    lines = conformance_lines(CELLS, width, whole=True)
    table = [line for line in lines if line.startswith("|")]
    assert max(map(len, table)) <= width
    headings = [cell.strip() for line in table if line.startswith("| strategy") for cell in line.split("|")[2:-1]]
    assert headings == list(PROPERTIES)
    for line, ruler in pairwise(table):
        if line.startswith("| strategy"):
            assert set(ruler) == {"|", " ", "-"}
            assert len(ruler) == len(line)
    assert len(table) % (len(STRATEGIES) + 2) == 0
    assert (len(table) == len(STRATEGIES) + 2) == (width == 1000)


def test_every_property_is_explained() -> None:
    lines = conformance_lines(CELLS, 80, whole=True)
    for name, row in PROPERTIES.items():
        [line] = [line for line in lines if line.startswith(f"- {name}: ")]
        assert row.meaning in line
        assert ("does not fit" in line) == (not row.fits)


def test_without_the_option_there_is_a_line() -> None:
    lines = conformance_lines(CELLS, 80, whole=False)
    assert lines == [
        f"{10 * len(CELLS):,} models drawn: {len(STRATEGIES) * FITTING} cells ok, 0 refused with an error, "
        f"0 silently wrong",
        f"{len(STRATEGIES) * (len(PROPERTIES) - FITTING)} cells of checkpoints that do not fit: refused, as they have "
        f"to be",
        "--conformance prints the table",
    ]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("whole", [True, False])
def test_what_comes_back_wrong_is_told_with_its_smallest_model(whole: bool) -> None:
    lines = conformance_lines([WRONG], 80, whole=whole)
    start = lines.index("baseline, ties: WRONG: weight1 was tied")
    assert lines[start + 1 : start + 3] == ["    so was weight2", "    weight0 = weight1: parameter"]
    assert ("| baseline | WRONG |" in lines) == whole


def test_what_a_loader_of_the_users_does_with_drawn_models_is_a_warning_with_one_example() -> None:
    mine = replace(WRONG, strategy="mine", is_own=True)
    names = ("views", "optimizer", "dtype", "shape", "untied", "moved", "missing")
    others = [replace(mine, property=name, example=f"of {name}") for name in names]
    tolerated = replace(mine, property="frozen", outcome=CellStatus.TOLERATED)
    lines = conformance_lines([WRONG, mine, tolerated, *others], 200, whole=False)
    assert lines == [
        "baseline, ties: WRONG: weight1 was tied",
        "    so was weight2",
        "    weight0 = weight1: parameter",
        "WARNING: mine, ties: parameters with two or three names, in any order",
        "    weight1 was tied",
        "    so was weight2",
        "    The smallest model: weight0 = weight1: parameter",
        "WARNING: mine, views: tensors that are views of other tensors",
        "WARNING: mine, optimizer: an optimizer made before the load, which steps the loaded weights",
        "WARNING: mine, dtype: a checkpoint that does not fit: a tensor has another dtype",
        "WARNING: mine, shape: a checkpoint that does not fit: a tensor has a shape that would broadcast",
        "WARNING: mine, untied: a checkpoint that does not fit: the names of a tied tensor have different values",
        "WARNING: mine: moved, missing",
        "    To accept this: --tolerate ties,views,optimizer,dtype,shape,untied,moved,missing",
        "30 models drawn: 0 cells ok, 0 refused with an error, 1 silently wrong, 8 with a warning, 1 tolerated",
        "--conformance prints the table",
    ]


def test_a_refusal_is_told_in_the_whole_table_only() -> None:
    cells = changed(views=CellStatus.REFUSED)
    told = "mmap_assign, views: refused: ValueError: no"
    assert told in conformance_lines(cells, 80, whole=True)
    counted = f"{len(STRATEGIES) * (FITTING - 1)} cells ok, {len(STRATEGIES)} refused with an error"
    assert counted in conformance_lines(cells, 80, whole=False)[0]


def test_a_cell_that_was_not_tried_is_a_dash() -> None:
    cells = [
        cell for cell in CELLS if (cell.strategy, cell.property) in {("baseline", "plain"), ("per_tensor", "ties")}
    ]
    assert "| baseline   | ok    | -    |" in conformance_lines(cells, 80, whole=True)
