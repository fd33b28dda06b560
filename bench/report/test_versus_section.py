import re
from dataclasses import replace

import pytest

from bench.report.versus_section import versus_lines, versus_markdown
from bench.versus.run_figures import PEAKS, BenchmarkKey
from bench.versus.side_comparison import ComparedPeak, ComparedTime, SideComparison, TimeChange

GIB = 2**30


def benchmark(strategy: str, test: str = "load_time") -> BenchmarkKey:
    return BenchmarkKey(f"bench/test_{test}.py::test_{test}[{strategy}-small-cpu]", "float32", "warm", planned=False)


def peak(strategy: str, figure: str, reference: float, candidate: float, verdict: str) -> ComparedPeak:
    equal = reference == candidate
    return ComparedPeak(benchmark(strategy, "peak_memory"), figure, reference, candidate, equal=equal, verdict=verdict)


SLOWER = ComparedTime(benchmark("meta_sequential"), "load_seconds", 0.6, 0.66, TimeChange(1.1, 1.012, 1.189, "slower"))
UNDECIDED = ComparedTime(
    benchmark("streamed"), "first_logits_seconds", 123.4, 123.4, TimeChange(1.0, 0.95, 1.05, "undecided", 12)
)
EQUAL = peak("streamed", "host_private_peak_bytes", GIB, GIB, "same")

RESULT = SideComparison(
    reference="torch==2.12.*",
    candidate="here",
    threshold=0.03,
    rounds=5,
    times=(SLOWER, UNDECIDED),
    peaks=(EQUAL, EQUAL),
    only_reference=(),
    only_candidate=(),
    unmeasured=(),
)


def test_wide_table() -> None:
    assert versus_lines(RESULT, 120) == [
        "benchmark                  figure          reference  candidate   change      95 % interval  verdict",
        "meta_sequential-small-cpu  load s              0.600      0.660  +10.0 %  +1.2 % to +18.9 %  slower",
        "streamed-small-cpu         first logits s        123        123   +0.0 %   -5.0 % to +5.0 %  undecided",
        "2 of 2 byte figures are equal, the host's but for 4 MiB",
        "1 undecided: 12 rounds would likely decide 1 of them",
        "Beside torch==2.12.*, here is slower in 1 of 2 times (5 rounds, 95 % confidence in all times together)",
    ]


def test_bytes_have_lines_only_where_they_differ() -> None:
    grown = peak("streamed", "device_requested_peak_bytes", GIB, 1.5 * GIB, "grew")
    by_a_little = peak("streamed", "device_reserved_peak_bytes", GIB, GIB + 512, "same")
    from_nothing = peak("streamed", "host_pinned_peak_bytes", 0, 64 * 2**20, "grew")
    shrunk = peak("streamed", "host_file_peak_bytes", GIB, 0, "shrank")
    result = replace(RESULT, times=(), peaks=(EQUAL, grown, by_a_little, from_nothing, shrunk))
    heading, *lines = versus_lines(result, 120)
    assert "reference" in heading
    assert [re.split("  +", line)[4] for line in lines[:4]] == ["+50.0 %", "+512 B", "+64.0 MiB", "-100.0 %"]
    assert [line.split()[-1] for line in lines[:4]] == ["grew", "same", "grew", "shrank"]
    assert "device requested peak  1,073,741,824  1,610,612,736" in lines[0]
    assert lines[4:] == [
        "1 of 5 byte figures are equal, the host's but for 4 MiB",
        "Beside torch==2.12.*, here is larger in 2 of 5 byte figures, smaller in 1 of 5 byte figures",
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_its_terminal_and_keeps_its_verdicts(width: int) -> None:
    peaks = tuple(peak("meta_sequential", figure, 12 * GIB, 25 * GIB, "grew") for figure in PEAKS)
    slow = replace(SLOWER, figure="first_logits_seconds", change=TimeChange(12.345, 10.123, 14.567, "undecided", 3))
    lines = versus_lines(replace(RESULT, times=(slow, UNDECIDED), peaks=peaks), width)[:9]
    assert max(map(len, lines)) <= width
    assert [line.split()[-1] for line in lines[1:]] == ["undecided", "undecided", *["grew"] * 6]
    assert all(line.startswith(("meta_sequential-small-cpu ", "streamed-small-cpu ")) for line in lines[1:])


def test_a_narrow_table_shows_the_change_and_where_it_can_its_interval() -> None:
    heading, row, _ = versus_lines(RESULT, 80)[:3]
    assert heading.split() == ["benchmark", "figure", "change", "95", "%", "interval", "verdict"]
    assert row.endswith("load s          +10.0 %  +1.2 % to +18.9 %  slower")


def test_what_is_not_on_both_sides_is_named() -> None:
    planned = BenchmarkKey("bench/test_peak_memory.py::test_peak_memory[x]", "float16", None, planned=True)
    result = replace(
        RESULT,
        only_reference=(benchmark("baseline"),),
        only_candidate=(planned, BenchmarkKey("test_x")),
        unmeasured=(BenchmarkKey("test_y"),),
    )
    lines = versus_lines(result, 120)
    assert "only torch==2.12.* has test_load_time[baseline-small-cpu] (float32, warm)" in lines
    assert "only here has test_peak_memory[x] (float16, planned), test_x" in lines
    assert "measured in too few rounds: test_y" in lines


def test_what_would_take_too_many_rounds_is_said_to() -> None:
    never = replace(UNDECIDED, change=replace(UNDECIDED.change, rounds_to_decide=None))
    longer = replace(UNDECIDED, change=replace(UNDECIDED.change, rounds_to_decide=23))
    lines = versus_lines(replace(RESULT, times=(UNDECIDED, longer, never)), 120)
    assert "3 undecided: 23 rounds would likely decide 2 of them, 1 would take more than 100" in lines
    assert lines[-1].startswith("Beside torch==2.12.*, here is not found to differ (5 rounds, ")


def test_a_comparison_of_nothing_says_so() -> None:
    nothing = replace(RESULT, times=(), peaks=())
    assert versus_lines(nothing, 80) == ["here and torch==2.12.* have no figure in common: nothing could be compared"]
    assert "|" not in versus_markdown(nothing)


def test_markdown_has_the_whole_table_and_the_same_lines() -> None:
    lines = versus_markdown(RESULT).splitlines()
    assert lines[:3] == [
        "| benchmark | figure | reference | candidate | change | 95 % interval | verdict |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
        "| meta_sequential-small-cpu | load s | 0.600 | 0.660 | +10.0 % | +1.2 % to +18.9 % | slower |",
    ]
    assert [line for line in lines[4:] if line] == versus_lines(RESULT, 120)[3:]
