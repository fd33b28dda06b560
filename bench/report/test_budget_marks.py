"""Tests of the user's budget in a table: headings, marks and verdicts."""

import re

import pytest

from bench.meters.budget import Budget
from bench.report.budget_marks import with_budget
from bench.report.rows import CaseResult, Problem, Row, Status, rows
from bench.report.table import cells, terminal_lines
from bench.selftest.case_results import S, limit, memory
from bench.selftest.sharded_run import taken

GIB = 2**30


def shown(table: list[Row], width: int = 70) -> dict[str, list[str]]:
    """Return the cells of each line of a table, by the first one."""
    lines = [re.split("  +", line) for line in terminal_lines(table, width)]
    [heading] = [line for line in lines if line[0] == "strategy"]
    return {line[0]: line[1:] for line in lines if len(line) == len(heading)}


LOADS = [memory("baseline", 1.0, device=2.0), memory("streamed", 0.1, device=1.0)]


def test_the_heading_has_the_budget_and_larger_figures_a_mark() -> None:
    """Though the loads were not tried with it: the run was interrupted before."""
    table = with_budget(rows([*LOADS, limit("memory", 1e9)]), Budget(GIB, GIB // 2))
    assert shown(table) == {
        "strategy": ["GPU of 1 GiB", "x model", "theory", "RAM GiB of 512 MiB", "verdict"],
        "baseline": ["! 1.31", "2.00x", "2.00x", "! 0.65", "too big"],
        "streamed": ["0.65", "1.00x", "1.00x", "0.07", "ok"],
    }
    assert "simulated" not in "".join(terminal_lines(table, 80))
    assert "!: does not fit; max: this machine's memory 1.00 GB/s" in terminal_lines(table, 80)
    assert "!:" not in "".join(terminal_lines(rows(LOADS), 80))


@pytest.mark.parametrize(("more", "mark"), [(0, ""), (-1, "! ")])
def test_a_figure_is_marked_from_the_first_byte_above_its_budget(more: int, mark: str) -> None:
    [row] = with_budget(rows(LOADS[1:]), Budget(S + more, None))
    assert shown([row])["streamed"][0] == f"{mark}0.65"


@pytest.mark.parametrize(("fits", "mark"), [(None, ""), (True, ""), (False, "! ")])
def test_more_reserved_than_the_budget_is_marked_where_the_load_died_of_it(fits: bool | None, mark: str) -> None:
    """An allocator gives back what it does not use before it runs out of memory."""
    [row] = with_budget(rows(LOADS[1:]), Budget(S, None))
    row.record.update(device_reserved_peak_bytes=S + 1, fits=fits)
    assert shown([row])["streamed"][0] == f"{mark}0.65"


@pytest.mark.parametrize(("more", "planned", "verdict"), [(0, True, "fits"), (-1, True, "ok"), (0, False, "ok")])
def test_a_plan_that_was_not_tried_fits_if_its_device_has_what_is_reserved(
    more: int, planned: bool, verdict: str
) -> None:
    one = LOADS[1].record.with_fields(planned=planned, device_reserved_peak_bytes=S + 1)
    table = rows([CaseResult(LOADS[1].key, one)])
    assert shown(with_budget(table, Budget(S + 1 + more, None)))["streamed"][-1] == verdict
    assert shown(with_budget(table, Budget(S + 1 + more, GIB)))["streamed"][-1] == "ok"


def test_a_verdict_says_whether_a_load_fits_unless_something_is_wrong_with_it() -> None:
    known = {"fits": True, "device_budget_bytes": 2 * GIB}
    [row] = rows([CaseResult(LOADS[0].key, LOADS[0].record.with_fields(known))])
    assert shown([row])["baseline"][-1] == "fits"
    failed = CaseResult(LOADS[0].key, LOADS[0].record.with_fields(known), Problem(Status.FAILED, "wrong"))
    assert shown(rows([failed]))["baseline"][-1] == "FAILED"


def test_host_memory_is_too_small_with_an_empty_process_though_the_figure_is_not() -> None:
    """Its figure does not count the empty process, which was 200 MiB here."""
    one = LOADS[1].record.with_fields(fits=False, device_budget_bytes=GIB, host_budget_bytes=GIB // 4)
    for more, marked in (({}, ["0.65", "! 0.07"]), ({"device_budget_bytes": S - 1}, ["! 0.65", "0.07"])):
        [line] = cells(rows([CaseResult(LOADS[1].key, one.with_fields(more))]))[1:]
        assert [cell for cell in line if cell.removeprefix("! ") in ("0.65", "0.07")] == marked
    table = rows([CaseResult(LOADS[1].key, one.with_fields(host_budget_bytes=None, device_budget_bytes=S - 1))])
    assert "0.07" in cells(table)[1]


def test_ranks_share_the_memory_of_their_node() -> None:
    loads = [taken("load_then_shard", "fsdp", 8), taken("streamed", "fsdp", 8, node_private_peak_bytes=0)]
    lines = shown(with_budget(rows(loads), Budget(GIB, 4 * GIB)))
    assert {"GPU of 1 GiB", "node of 4 GiB"} <= set(lines["strategy"])
    assert [line[-1] for line in lines.values()] == ["verdict", "too big", "ok"]
    assert "! 14.9" in lines["load_then_shard"]


def test_a_page_can_sort_the_figures() -> None:
    heading, line, _ = cells(with_budget(rows(LOADS), Budget(GIB, None)), whole=True)
    assert line[heading.index("GPU of 1 GiB")] == "1.31"
    assert line[-1] == "too big"
