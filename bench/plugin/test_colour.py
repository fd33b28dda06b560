from io import StringIO

import pytest

from bench.conformance.judge import CellStatus
from bench.history import findings
from bench.plugin.colour import BETTER, RIGHT, UNTOLD, WORDS, WRONG, parts, write_coloured
from bench.report.conformance import WORDS as CONFORMANCE


@pytest.mark.parametrize(
    ("line", "marked"),
    [
        ("baseline  small  2.00x  ok", {"ok": RIGHT}),
        ("baseline  xl    skipped", {"skipped": UNTOLD}),
        ("baseline-xl: skipped: takes 13.5 GB of memory", {"skipped": UNTOLD}),
        ("| baseline   | ok    | WRONG |", {"ok": RIGHT, "WRONG": WRONG}),
        ("baseline, ties: WRONG: weight1 was tied", {"WRONG": WRONG}),
        ("GREW    streamed-small-sim  device requested peak  1.00 GiB", {"GREW": WRONG}),
        ("shrank  streamed-small-sim  device requested peak  1.00 GiB", {"shrank": BETTER}),
        ("streamed-small-cpu  output s  +0.0 %  undecided", {"undecided": UNTOLD}),
        ("NOT COMPARED: skipped or failed: test_load_time[x]", {"NOT COMPARED": UNTOLD}),
        ("NOT ACCEPTED: 1 figure is worse", {"NOT ACCEPTED": WRONG}),
        ("Least memory: per_tensor (GPU 0.65 GiB)", {"Least memory": BETTER}),
        ("baseline  ! 30.2  too big", {"too big": UNTOLD}),
        ("baseline  15.1  fits", {"fits": RIGHT}),
        # What is no verdict: sentences, and names in which one is.
        ("3 benchmarks compared: nothing grew, nothing is slower", {}),
        ("12 cells ok, 0 refused with an error, 0 silently wrong", {}),
        ("Beside main, here is slower in 1 of 2 times", {}),
        ("token.py  ok_thing  broken  test_ok.py: ok.", {}),
        ("FAILED-tiny: no", {}),
        ("    1.00 MiB in 1 tensor: r.py:3 what: ok", {}),
        ("", {}),
    ],
)
def test_only_verdicts_are_marked(line: str, marked: dict[str, dict[str, bool]]) -> None:
    assert {piece: how for piece, how in parts(line) if how} == marked
    assert "".join(piece for piece, _ in parts(line)) == line


def test_every_verdict_has_a_colour() -> None:
    assert WORDS.keys() >= {*findings.REGRESSIONS, *findings.GAINS, findings.BUSY}
    assert WORDS.keys() >= {CONFORMANCE[outcome] for outcome in CellStatus}


@pytest.mark.parametrize(("colour", "written"), [(True, "x  \x1b[32mok\x1b[0m\n"), (False, "x  ok\n")])
def test_there_is_colour_where_pytest_has_it(
    pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch, colour: bool, written: str
) -> None:
    output = StringIO()
    reporter = pytest.TerminalReporter(pytestconfig, output)
    monkeypatch.setattr(reporter._tw, "hasmarkup", colour)
    monkeypatch.setattr(pytestconfig, "get_terminal_writer", lambda: reporter._tw)
    write_coloured(reporter, "x  ok")
    assert output.getvalue() == written
