from bench.history.baselines import Baselines
from bench.history.comparison import Comparison
from bench.history.findings import TimeComparison, Unseen
from bench.history.runs import Key
from bench.report.comparison_section import comparison_lines, comparison_markdown


def key(name: str) -> Key:
    return Key(f"bench/test_load_time.py::test_load_time[{name}-small-cpu]", "float32", "warm", False)


def compared(*unseen: Unseen) -> Comparison:
    return Comparison(Baselines([], {}), accepted=False, passed_over=[], times=TimeComparison(4, [], {}, unseen))


def test_a_row_a_benchmark_says_which_slow_downs_could_not_be_seen() -> None:
    one, other = key("streamed"), key("meta_sequential")
    comparison = compared(
        Unseen(one, "load_seconds", 0.459, 6),
        Unseen(one, "first_logits_seconds", 0.12, 6),
        Unseen(other, "first_logits_seconds", 12.345, 30),
    )
    lines = comparison_lines(comparison, None, 80)
    assert lines[:3] == [
        "a slow-down below          load  first logits  could not be seen here",
        "streamed-small-cpu         45 %          12 %  spread of 6 runs",
        "meta_sequential-small-cpu             1,234 %  spread of 30 runs",
    ]
    assert "| streamed-small-cpu | 45 % | 12 % | spread of 6 runs |" in comparison_markdown(comparison, None)


def test_where_all_is_seen_well_nothing_is_said() -> None:
    assert not any("could not be seen" in line for line in comparison_lines(compared(), None, 80))
    assert "could not be seen" not in comparison_markdown(compared(), None)


def test_times_of_one_benchmark_may_have_windows_of_their_own() -> None:
    spreads = Unseen(key("a"), "load_seconds", 0.2, 30), Unseen(key("a"), "first_logits_seconds", 0.3, 6)
    assert comparison_lines(compared(*spreads), None, 80)[1].endswith("spread of 6 and 30 runs")
