import re
from dataclasses import replace

import pytest

from bench.record.record import Record
from bench.record.row_key import RowKey
from bench.report.rows import CaseResult, Problem, Row, Status, rows
from bench.report.table import COLUMNS, markdown, terminal_lines
from bench.selftest.case_results import RUN, S, against_limit, limit, memory, seconds, tried


def test_wide_table() -> None:
    assert terminal_lines(rows(RUN), 120) == [
        "small: model S = 669.9 MiB (702,480,384 bytes), largest tensor L = 147.2 MiB",
        "strategy     size   RAM GiB  x model  theory  mapped  theory  load s  output s  load GB/s  verdict",
        "baseline     small     1.31    2.00x   2.00x   0.00x   0.00x    1.50      3.00       1.50  ok",
        "mmap_assign  small     0.00    0.00x   0.00x   1.00x   1.00x    0.12      0.25       1.50  ok",
        "per_tensor   small     0.80    1.22x   1.22x   0.00x   0.00x    0.50      1.00       1.50  ok",
        "output s: until the first output",
        "Least memory: mmap_assign (RAM 0.00 GiB, mapped); owning its weights: per_tensor (RAM 0.80 GiB)",
        "Fastest on this CPU: mmap_assign (0.25 s, mapped); owning its weights: per_tensor (1.00 s)",
    ]


def full_table() -> list[CaseResult]:
    """The longest names and largest figures that a CUDA run may show, in every column that there is."""
    return [
        limit("mapping", 123.45e9),
        *(memory(name, 12.25, device=12.25, mapped=True) for name in ("meta_sequential", "mmap_assign")),
        *(against_limit(name, 1234.56, 10.25, (12_345_678, 999)) for name in ("meta_sequential", "mmap_assign")),
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_its_terminal(width: int) -> None:
    for table in (RUN, full_table()):
        lines = terminal_lines(rows(table), width)
        tabular = [line for line in lines if not line.startswith(("Least memory", "Fastest"))]
        assert max(map(len, tabular)) <= width
        assert max(map(len, lines)) <= 120


def test_where_there_is_room_every_column_is_shown() -> None:
    everything = Record.read(dict.fromkeys((name for name, _ in COLUMNS), 1) | {"state_bytes": S})
    table = [Row(RowKey("baseline", "small"), everything)]
    lines, names = terminal_lines(table, 1000), [column.heading.format(unit="GiB") for _, column in COLUMNS]
    [heading] = [line for line in lines if line.startswith("strategy")]
    assert re.split("  +", heading) == ["strategy", "size", *names, "verdict"]
    [heading] = [line for line in markdown(table).splitlines() if line.startswith("| strategy")]
    assert heading.count("|") == len(COLUMNS) + 4


def test_what_answers_whether_it_fits_is_in_the_narrowest_table() -> None:
    heading = terminal_lines(rows(full_table()), 80)[1]
    assert re.split("  +", heading)[-7:] == ["GPU GiB", "x model", "theory", "RAM GiB", "output s", "of max", "verdict"]


def test_the_size_stands_in_a_narrow_table_only_where_there_are_several() -> None:
    large = CaseResult(RowKey("baseline", "large"), RUN[0].record)
    for run, width, is_there in ((RUN[:1], 30, False), ([*RUN[:1], large], 30, True), (RUN[:1], 120, True)):
        [heading] = [line for line in terminal_lines(rows(run), width) if line.startswith("strategy")]
        assert ("size" in heading.split()) == is_there


def test_the_legend_has_the_best_that_the_machine_can_do_and_the_table_has_no_row_of_it() -> None:
    run = [
        limit("mapping", 96.02e9),
        memory("streamed", 1.0, device=2.0),
        against_limit("streamed", 99.5, 0.86, (1, 2)),
    ]
    for width in (60, 80, 120):
        lines = terminal_lines(rows(run), width)
        assert not [line for line in lines if line.startswith("limit")]
        assert "mapping 96.0 GB/s" in " ".join(lines)
    lines = terminal_lines(rows([limit("memory", 2e9)]), 80)
    assert lines[1:] == ["max: this machine's memory 2.00 GB/s"]
    failed = replace(limit("memory", 2e9), problem=Problem(Status.FAILED, "no"))
    assert "limit: memory-small: no" in terminal_lines(rows([failed]), 80)


def test_a_simulated_gpu_is_named_below_the_table() -> None:
    for device, simulated in (("sim", True), ("cuda", False)):
        one = memory("streamed", 1.0, device=1.0)
        one.record.device = device
        assert ("GPU: simulated" in terminal_lines(rows([one]), 80)) == simulated


def test_small_models_are_shown_in_mib() -> None:
    one = memory("streamed", 0.5, device=1.0)
    one.record.update(state_bytes=S // 8, device_requested_peak_bytes=S // 8, host_private_peak_bytes=S // 16)
    lines = terminal_lines(rows([one]), 80)
    assert re.split("  +", lines[1])[2:4] == ["GPU MiB", "x model"]
    assert lines[2].split()[2:4] == ["83.7", "1.00x"]


def test_a_load_is_shown_as_a_part_of_its_limit_with_its_faults() -> None:
    run = [limit("memory", 2e9), against_limit("baseline", 3.0, 0.754, (171_000, 34)), seconds("per_tensor", 1.0)]
    assert terminal_lines(rows(run), 120)[1:4] == [
        "strategy    size   load s  output s  load GB/s  of max  page faults  verdict",
        "baseline    small    1.50      3.00       1.50    0.75      171,034  ok",
        "per_tensor  small    0.50      1.00       1.50       -            -  ok",
    ]


@pytest.mark.parametrize(
    ("rate", "shown"),
    [(0.004, "0.00"), (9.994, "9.99"), (9.996, "10.0"), (99.94, "99.9"), (99.96, "100"), (1234.5, "1234")],
)
def test_speeds_have_three_digits(rate: float, shown: str) -> None:
    assert terminal_lines(rows([limit("memory", rate * 1e9)]), 80)[-1].split()[-2] == shown


def test_no_faults_are_a_figure() -> None:
    [row] = rows([against_limit("baseline", 3.0, 1.0, (0, 0))])
    assert terminal_lines([row], 120)[1].split()[-2:] == ["0", "ok"]


def test_the_three_device_figures_fit_a_wide_terminal_beside_times() -> None:
    run = [memory("meta_sequential", 1.0, device=2.0), seconds("meta_sequential", 1.0)]
    heading, row = terminal_lines(rows(run), 160)[1:3]
    figures = dict(zip(re.split("  +", heading), re.split("  +", row), strict=True))
    assert figures["reserved"] == figures["allocated"] == "2.00x"
    assert figures["GPU GiB"] == "1.31"
    assert "output s" in figures


def test_what_failed_is_marked_and_explained_and_never_best() -> None:
    lines = terminal_lines(
        rows(
            [*RUN, seconds("mmap_assign", 0.2, problem=Problem(Status.FAILED, "WrongModel: out_head.weight differs"))]
        ),
        80,
    )
    [row] = [line for line in lines if line.startswith("mmap_assign ")]
    assert row.endswith("FAILED")
    assert "mmap_assign-small: WrongModel: out_head.weight differs" in lines
    assert "To look into what failed, repeat with: -k mmap_assign --explain" in lines
    assert lines[-2:] == ["Least memory: per_tensor (RAM 0.80 GiB)", "Fastest on this CPU: per_tensor (1.00 s)"]


def test_what_was_skipped_says_why() -> None:
    lines = terminal_lines(
        rows([CaseResult(RowKey("baseline", "xl"), problem=Problem(Status.SKIPPED, "takes 13.5 GB of memory"))] * 2),
        120,
    )
    assert lines == [
        "strategy  size  verdict",
        "baseline  xl    skipped",
        "0 of 1 strategies were measured with xl; 1 skipped",
        "baseline-xl: skipped: takes 13.5 GB of memory",
    ]


def test_a_stand_in_for_a_gpu_is_named_and_has_no_times() -> None:
    said = "stand-in for a GPU (80 GiB): bytes are of PyTorch's CUDA allocator, and no times are shown"
    known = {"device": "cuda", "stand_in": "80 GiB"}
    loads = [
        replace(one, record=one.record.with_fields(known)) for one in (RUN[0], memory("streamed", 0.1, device=1.0))
    ]
    timed = [CaseResult(one.key, Record.read(known | {"state_bytes": S})) for one in loads]
    for lines in (terminal_lines(rows([*loads, *timed]), 80), markdown(rows([*loads, *timed])).splitlines()):
        assert lines.count(said) == 1
        assert not [line for line in lines if "output s" in line or "Fastest" in line]
    assert said not in terminal_lines(rows(RUN), 80)


def test_markdown_is_a_table_of_as_many_columns_in_every_line() -> None:
    lines = [line for line in markdown(rows(RUN)).splitlines() if line.startswith("|")]
    assert len(lines) == 5
    assert {line.count("|") for line in lines} == {12}
    assert lines[1].startswith("| --- | --- | ---: |")


def test_who_fits_a_budget_is_in_a_narrow_table_too_and_below_it_how_others_end() -> None:
    results = [
        *(
            outcome
            for name in ("baseline", "streamed")
            for outcome in (memory(name, 1.0, device=2.0), seconds(name, 1.0))
        ),
        tried("baseline", fits=False, fate="killed at 3.9 GiB of 4 GiB after 61 % of the tensors"),
        tried("streamed", fits=True, smallest_device_bytes=3 * 2**29, smallest_host_bytes=700 * 2**20),
    ]
    lines = terminal_lines(rows(results), 80)
    [baseline, streamed] = [line for line in lines if line.startswith(("baseline ", "streamed "))]
    assert baseline.endswith("  too big")
    assert streamed.endswith("  fits")
    assert re.split("  +", streamed)[1:3] == ["1.5 GiB", "700 MiB"]
    assert "baseline-small: killed at 3.9 GiB of 4 GiB after 61 % of the tensors" in lines
    # What does not fit is not praised.
    assert lines[-2:] == [
        "Least memory: streamed (GPU 1.31 GiB, RAM 0.65 GiB)",
        "Fastest on this CPU: streamed (1.00 s)",
    ]
    assert "killed at 3.9 GiB" in markdown(rows(results))


WHY = Problem(Status.REFUSED, "['angles'] are not persistent; use baseline or sequential")


def test_how_many_strategies_work_is_said_and_why_others_do_not_once() -> None:
    refusing = [
        CaseResult(RowKey(name, "small"), Record(strategy=name), WHY)
        for name in ("load_assign", "streamed", "streamed")
    ]
    run = [memory("baseline", 1.0), *refusing, limit("memory", 2e9), memory("sequential", 1.0)]
    for lines in (terminal_lines(rows(run), 80), markdown(rows(run)).splitlines()):
        assert lines.count("2 of 4 strategies work with small: baseline, sequential; 2 refused") == 1
        assert [line for line in lines if "persistent" in line] == [f"load_assign-small, streamed-small: {WHY}"]
    failed = [
        *run,
        CaseResult(RowKey("sequential", "small"), problem=Problem(Status.FAILED, "too much")),
        CaseResult(RowKey("per_tensor", "small"), problem=Problem(Status.SKIPPED, "too large")),
    ]
    assert "1 of 5 strategies work with small: baseline; 2 refused, 1 skipped, 1 FAILED" in terminal_lines(
        rows(failed), 80
    )
    # What failed is counted by its own lines.
    assert not [line for line in terminal_lines(rows([run[0], failed[-2]]), 80) if " of " in line and "work" in line]


def test_a_refusal_is_no_failure_and_a_bound_of_times_is_none_of_peaks() -> None:
    refused = CaseResult(RowKey("streamed", "small"), Record(strategy="streamed"), WHY)
    lines = terminal_lines(rows([memory("baseline", 1.0), refused]), 80)
    assert [line.split()[-1] for line in lines if line.startswith("streamed ")] == ["refused"]
    assert f"streamed-small: {WHY}" in lines
    timed = seconds("usual", 1.0)
    timed.record.update(host_bound_ratio=1.0, strategy="usual", state_bytes=S)
    own = memory("usual", 2.0)
    own.record.update(host_bound_ratio=None)
    [row] = rows([own, timed])
    assert row.record.host_bound_ratio is None


def test_a_failure_that_two_tests_found_is_said_once() -> None:
    found = [Problem(Status.FAILED, f"{error}0.weight differs") for error in ("", "WrongModel: ")]
    table = rows([CaseResult(RowKey("streamed", "small"), problem=problem) for problem in found])
    assert [line for line in terminal_lines(table, 80) if "differs" in line] == ["streamed-small: 0.weight differs"]
    alone = rows([CaseResult(RowKey("streamed", "small"), problem=found[1])])
    assert "streamed-small: WrongModel: 0.weight differs" in terminal_lines(alone, 80)
