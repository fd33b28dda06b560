import pytest

from bench.plugin.annotations import MOST_OF_A_KIND, FailedTest, annotations


def failed(why: str, name: str = "test_x[streamed-small-sim]") -> FailedTest:
    return FailedTest("bench/test_x.py", 37, name, why)


def test_a_failure_is_shown_where_its_test_is() -> None:
    assert list(annotations([failed("host private peak is 2.00x")], [], [])) == [
        "::error file=bench/test_x.py,line=37,title=test_x[streamed-small-sim]::host private peak is 2.00x"
    ]


def test_a_failure_in_a_repository_without_the_suite_has_no_place_there() -> None:
    [line] = annotations([FailedTest("", 37, "test_x", "no")], [], [])
    assert line == "::error title=test_x::no"


def test_what_is_about_the_whole_run_comes_first_and_what_cannot_be_told_is_a_warning() -> None:
    lines = list(annotations([failed("no")], ["this run is not recorded"], ["NOT COMPARED: test_x"]))
    assert [line.partition(" file")[0] for line in lines] == [
        "::error::this run is not recorded",
        "::error",
        "::warning::NOT COMPARED: test_x",
    ]


@pytest.mark.parametrize(
    ("text", "message", "title"),
    [("5 %\r\n%0A", "5 %25%0D%0A%250A", "5 %25%0D%0A%250A"), ("a: b, c::d", "a: b, c::d", "a%3A b%2C c%3A%3Ad")],
)
def test_what_would_end_a_command_is_escaped(text: str, message: str, title: str) -> None:
    [line] = annotations([failed(text, text)], [], [])
    assert line == f"::error file=bench/test_x.py,line=37,title={title}::{message}"


@pytest.mark.parametrize(("count", "last"), [(10, "::error::9"), (11, "::error::and 2 more: the log has them all")])
def test_the_last_of_too_many_says_how_many_more(count: int, last: str) -> None:
    lines = list(annotations([], [str(number) for number in range(count)], ["NOT COMPARED: test_x"]))
    assert len(lines) == MOST_OF_A_KIND + 1
    assert lines[-2] == last
