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
        "small: S = 702,480,384 bytes of state, L = 154,389,504 bytes in its largest tensor",
        "strategy     size    GiB  private  bound   file  bound  load s  logits s  GB/s  verdict",
        "baseline     small  1.31    2.00x  2.00x  0.00x  0.00x    1.50      3.00  1.50  ok",
        "mmap_assign  small  0.00    0.00x  0.00x  1.00x  1.00x    0.12      0.25  1.50  ok",
        "per_tensor   small  0.80    1.22x  1.22x  0.00x  0.00x    0.50      1.00  1.50  ok",
        "Best here: mmap_assign (0.00x private, mapped); owning its weights: per_tensor (1.22x private)",
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
        tabular = [line for line in lines if not line.startswith(("Best here", "Fastest", "small: "))]
        assert max(map(len, tabular)) <= width
        assert max(map(len, lines)) <= 120


def test_where_there_is_room_every_column_is_shown() -> None:
    everything = Record.read(dict.fromkeys((name for name, _ in COLUMNS), 1) | {"state_bytes": S})
    table = [Row(RowKey("baseline", "small"), everything)]
    lines = terminal_lines(table, 1000)
    [heading] = [line for line in lines if line.startswith("strategy")]
    assert re.split("  +", heading) == ["strategy", "size", *(column.heading for _, column in COLUMNS), "verdict"]
    [heading] = [line for line in markdown(table).splitlines() if line.startswith("| strategy")]
    assert heading.count("|") == len(COLUMNS) + 4


def test_what_a_load_makes_of_the_limit_is_in_every_table_and_its_faults_in_most() -> None:
    narrow, wide = (terminal_lines(rows(full_table()), width) for width in (80, 120))
    assert " limit " in narrow[1]
    assert " limit " in wide[1]
    assert "faults" in wide[1]


def test_limits_have_a_figure_in_a_narrow_table() -> None:
    run = [
        limit("mapping", 96.02e9),
        memory("meta_sequential", 1.0, device=2.0),
        against_limit("streamed", 99.5, 0.86, (1, 2)),
    ]
    shown = terminal_lines(rows(run), 80)[1:]
    assert " ".join(shown[0].split()) == "strategy size device bound private logits s GB/s limit verdict"
    assert shown[3].split() == ["limit:", "mapping", "small", "-", "-", "-", "-", "96.0", "-", "ok"]


def test_a_load_is_shown_as_a_part_of_its_limit_with_its_faults() -> None:
    run = [limit("memory", 2e9), against_limit("baseline", 3.0, 0.754, (171_000, 34)), seconds("per_tensor", 1.0)]
    assert terminal_lines(rows(run), 120)[1:] == [
        "strategy       size   load s  logits s  GB/s  limit   faults  verdict",
        "baseline       small    1.50      3.00  1.50   0.75  171,034  ok",
        "per_tensor     small    0.50      1.00  1.50      -        -  ok",
        "limit: memory  small       -         -  2.00      -        -  ok",
    ]


@pytest.mark.parametrize(
    ("rate", "shown"),
    [(0.004, "0.00"), (9.994, "9.99"), (9.996, "10.0"), (99.94, "99.9"), (99.96, "100"), (1234.5, "1234")],
)
def test_speeds_have_three_digits(rate: float, shown: str) -> None:
    assert terminal_lines(rows([limit("memory", rate * 1e9)]), 80)[-1].split()[-2] == shown


def test_no_faults_are_a_figure() -> None:
    [row] = rows([against_limit("baseline", 3.0, 1.0, (0, 0))])
    assert terminal_lines([row], 120)[-1].split()[-2:] == ["0", "ok"]


def test_the_three_device_figures_fit_a_wide_terminal_beside_times() -> None:
    run = [memory("meta_sequential", 1.0, device=2.0), seconds("meta_sequential", 1.0)]
    heading, row = terminal_lines(rows(run), 120)[1:3]
    figures = dict(zip(heading.split(), row.split(), strict=False))
    assert max(len(heading), len(row)) <= 120
    assert figures["reserved"] == figures["alloc."] == figures["device"] == "2.00x"
    assert "logits" in heading


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
    assert lines[-2:] == ["Best here: per_tensor (1.22x private)", "Fastest on this CPU: per_tensor (1.00 s)"]


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
        assert not [line for line in lines if "logits s" in line or "Fastest" in line]
    assert said not in terminal_lines(rows(RUN), 80)


def test_markdown_is_a_table_of_as_many_columns_in_every_line() -> None:
    lines = [line for line in markdown(rows(RUN)).splitlines() if line.startswith("|")]
    assert len(lines) == 5
    assert {line.count("|") for line in lines} == {12}
    assert lines[1].startswith("| --- | --- | ---: |")


def test_who_fits_a_budget_is_in_a_narrow_table_too_and_who_dies_below_it_how() -> None:
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
    [baseline, streamed] = [line.split() for line in lines if line.startswith(("baseline ", "streamed "))]
    assert (baseline[2], baseline[-1], streamed[2]) == ("dies", "ok", "fits")
    [wide] = [line.split() for line in terminal_lines(rows(results), 150) if line.startswith("streamed ")]
    assert wide[2:7] == ["fits", "1.5", "GiB", "700", "MiB"]
    assert "baseline-small: killed at 3.9 GiB of 4 GiB after 61 % of the tensors" in lines
    # What does not fit is not praised.
    assert lines[-2:] == [
        "Best here: streamed (2.00x device, 1.00x private)",
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
