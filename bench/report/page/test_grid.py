from bench.conformance.judge import CellStatus
from bench.conformance.properties import PROPERTIES
from bench.conformance.sweep import Cell
from bench.report.page.grid import Square, grid

FITS, MISFIT = (next(name for name, row in PROPERTIES.items() if row.fits == fits) for fits in (True, False))


def cell(strategy: str, name: str, outcome: CellStatus, why: str = "") -> Cell:
    return Cell(strategy, name, outcome, 5, "Model()", why)


def test_a_square_says_what_became_of_it_and_why() -> None:
    made = grid(
        [
            cell("a", FITS, CellStatus.PASSED),
            cell("a", MISFIT, CellStatus.REFUSED, "w: no"),
            cell("b", FITS, CellStatus.REFUSED, "w: no"),
            cell("c", FITS, CellStatus.WRONG, "w differs\nby 1"),
        ]
    )
    assert [name for name, _ in made.columns] == [FITS, MISFIT]
    assert made.rows == [
        # To refuse what does not fit is right.
        ("a", [Square("ok", "passed", ""), Square("refused", "passed", f"a, {MISFIT}: refused: w: no\n    Model()")]),
        ("b", [Square("refused", "refused", f"b, {FITS}: refused: w: no\n    Model()"), None]),
        ("c", [Square("WRONG", "wrong", f"c, {FITS}: WRONG: w differs\n    by 1\n    Model()"), None]),
    ]
