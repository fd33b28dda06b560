import pytest

from bench.conformance.judge import Outcome as Judged
from bench.conformance.sweep import Cell
from bench.report.annotations import MOST_OF_A_KIND, annotations
from bench.report.rows import Outcome, Place

PLACE = Place("bench/test_peak_memory.py", 37, "streamed-small-sim")


def failed(verdict: str, place: Place | None = PLACE) -> Outcome:
    return Outcome("streamed", "small", verdict, place=place)


def test_a_failure_is_shown_where_its_test_is() -> None:
    assert list(annotations([failed("host private peak is 2.00x")], [], [], [])) == [
        "::error file=bench/test_peak_memory.py,line=37,title=streamed-small-sim::host private peak is 2.00x"
    ]
    assert list(annotations([failed("no", None)], [], [], [])) == ["::error title=streamed-small::no"]


def test_what_passed_or_was_skipped_is_not_shown() -> None:
    passed = Cell("baseline", "ties", Judged.PASSED, 3)
    refused = Cell("baseline", "views", Judged.REFUSED, 3, "weight: parameter", "ValueError: no")
    assert not list(annotations([failed("ok"), failed("skipped: takes 13.5 GB")], [passed, refused], [], []))


def test_a_wrong_cell_is_an_error_with_its_smallest_model() -> None:
    cell = Cell("baseline", "ties", Judged.WRONG, 3, "weight0 = weight1: parameter", "weight1 was tied")
    assert list(annotations([], [cell], [], [])) == [
        "::error title=baseline%2C ties%3A WRONG::weight1 was tied%0Aweight0 = weight1: parameter"
    ]


def test_what_is_about_the_whole_run_comes_first_and_what_cannot_be_told_is_a_warning() -> None:
    lines = list(annotations([failed("no", None)], [], ["this run is not recorded"], ["NOT COMPARED: test_x"]))
    assert lines == [
        "::error::this run is not recorded",
        "::error title=streamed-small::no",
        "::warning::NOT COMPARED: test_x",
    ]


@pytest.mark.parametrize(
    ("text", "message", "title"),
    [("5 %\r\n%0A", "5 %25%0D%0A%250A", "5 %25%0D%0A%250A"), ("a: b, c::d", "a: b, c::d", "a%3A b%2C c%3A%3Ad")],
)
def test_what_would_end_a_command_is_escaped(text: str, message: str, title: str) -> None:
    [line] = annotations([failed(text, Place("x.py", 1, text))], [], [], [])
    assert line == f"::error file=x.py,line=1,title={title}::{message}"


@pytest.mark.parametrize(("count", "last"), [(10, "::error::9"), (11, "::error::and 2 more: the log has them all")])
def test_the_last_of_too_many_says_how_many_more(count: int, last: str) -> None:
    lines = list(annotations([], [], [str(number) for number in range(count)], ["NOT COMPARED: test_x"]))
    assert len(lines) == MOST_OF_A_KIND + 1
    assert lines[-2] == last
