"""Tables of loads by many processes."""

import re

import pytest

from bench.record import formats
from bench.report import sharded
from bench.report.rows import CaseResult, rows
from bench.report.table import markdown, terminal_lines
from bench.report.unit import unit
from bench.selftest.recorded_run import S
from bench.selftest.sharded_run import plan, run, seconds, skipped, taken

GIB = 2**30


def heading(lines: list[str]) -> list[str]:
    [line] = [line for line in lines if line.startswith("strategy")]
    return re.split("  +", line)


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize(
    ("loads", "asked"),
    [
        (run(64), {"GPU MiB", "x share", "node MiB", "read", "output s"}),
        (plan(8, 64, 1024), {"ranks", "GPU MiB", "x share", "RAM MiB", "node MiB"}),
    ],
    ids=["run", "plan"],
)
def test_what_a_user_asks_first_fits_a_terminal(loads: list[CaseResult], asked: set[str], width: int) -> None:
    table = [line for line in terminal_lines(rows(loads), width) if line.startswith(("strategy", "load_", "streamed"))]
    assert len(table) == 1 + len(loads) // (2 if "read" in asked else 1)
    assert max(map(len, table)) <= width
    assert asked <= set(heading(table))


def test_where_there_is_room_every_column_is_shown() -> None:
    table = rows([*run(2), *given_memory()])
    names = [column.heading.format(unit="GiB") for _, column in sharded.columns(table)]
    assert heading(terminal_lines(table, 1000)) == ["strategy", "size", *names, "verdict"]
    [line] = [line for line in markdown(table).splitlines() if line.startswith("| ---")]
    assert line == "| --- | --- | --- |" + " ---: |" * (len(names) - 1) + " --- |"


def given_memory() -> list[CaseResult]:
    """Loads that were tried with a budget."""
    return [taken("streamed", "fsdp", 2, 1.0, fits=True), taken("broadcast", "fsdp", 2, 1.0, fits=False, fate="gone")]


def test_the_verdict_says_whether_ranks_fit() -> None:
    lines = terminal_lines(rows(given_memory()), 80)
    found = {
        line.split()[0]: re.split("  +", line)[-1] for line in lines if line.startswith(("streamed  ", "broadcast  "))
    }
    assert found == {"streamed": "fits", "broadcast": "too big"}
    assert "broadcast fsdp x2-small: gone" in lines


def test_a_rank_is_shown_in_bytes_and_as_a_part_of_its_share() -> None:
    outcome = taken(
        *("streamed", "fsdp", 4, 1.25),
        state_bytes=8 * GIB,
        share_bytes=2 * GIB,
        device_requested_peak_bytes=5 * GIB // 2,
        device_bound_ratio=0.375,
        device_reserved_peak_bytes=None,
        host_private_peak_bytes=0,
        host_bound_ratio=None,
        node_private_peak_bytes=101 * GIB,
        node_file_peak_bytes=GIB // 100,
        read_bytes=8.08 * GIB,
    )
    lines = terminal_lines(rows([outcome]), 1000)
    [line] = [line for line in lines if line.startswith("streamed ")]
    assert dict(zip(heading(lines)[3:], line.split()[3:], strict=True)) == {
        "ranks": "4",
        "GPU GiB": "2.50",
        "theory": "3.00",
        "x share": "1.25x",
        "RAM GiB": "0.00",
        "node GiB": "101",
        "mapped GiB": "0.01",
        "read": "1.01x",
        "verdict": "ok",
    }
    assert (
        "GPU, RAM: the rank that takes most; node, mapped: all ranks of a node; read: by all ranks, x model"
        in "\n".join(lines)
    )


def test_all_bytes_of_a_table_have_the_unit_in_which_its_least_rank_has_digits() -> None:
    """They are compared with each other: here and on the page, which sorts them."""
    small = taken("streamed", "fsdp", 1024)
    table = rows([taken("load_then_shard", "fsdp", 2, 4.0), small])
    assert unit(table) == formats.MIB
    lines = terminal_lines(table, 1000)
    figures = [line.split()[4] for line in lines if line.startswith(("load_then_shard", "streamed"))]
    assert figures == [f"{4 * S / 2 / 2**20:.0f}", f"{S / 1024 / 2**20:.2f}"]
    assert unit(rows([taken("streamed", "fsdp", 2)])) == formats.GIB


def test_loads_that_are_compared_stand_beside_each_other_and_none_hides_another() -> None:
    told = [(row.key.strategy, (row.key.parallelism, row.key.ranks)) for row in rows(plan(64, 8))]
    ways = [("fsdp", 8), ("tensor", 8), ("fsdp", 64), ("tensor", 64)]
    assert told == [(name, way) for way in ways for name in ("load_then_shard", "streamed")]


def test_what_a_rank_holds_in_the_end_is_said_for_each_number_of_ranks() -> None:
    lines = terminal_lines(rows([*run(2), taken("streamed", "tensor", 1024)]), 80)
    assert lines[1:3] == [
        "small: after the load, one rank of 2 holds S/N = 476.8 MiB (fsdp), 476.8 MiB (tensor)",
        "small: after the load, one rank of 1,024 holds S/N = 953.7 KiB (tensor)",
    ]


def test_who_is_best_is_told_apart_by_how_the_model_is_divided() -> None:
    """A reader chooses the strategy; the division of the model is given by their training."""
    loads = [
        (taken("frugal", "fsdp", 8, 1.0), 2.0),
        # By a twentieth of what a rank holds, not of the model, it takes more.
        (taken("quick", "fsdp", 8, 1.2), 1.0),
        (taken("equal", "tensor", 8, 1.01), 1.0),
        (taken("slow", "tensor", 8, 1.0), 2.0),
        (taken("few", "tensor", 4, 0.5), 0.5),
    ]
    results = [*(load for load, _ in loads), *(seconds(*load) for load in loads)]
    assert terminal_lines(rows(results), 120)[-2:] == [
        "Least memory: frugal fsdp x8 (GPU 0.12 GiB); equal tensor x8, slow tensor x8 (GPU 0.12 GiB)",
        "Fastest on this CPU: quick fsdp x8 (1.00 s); equal tensor x8 (1.00 s)",
    ]


def test_what_was_skipped_is_named_and_said_once_where_it_is_true_of_all() -> None:
    all_of_it = [skipped("dcp", "fsdp", 8), skipped("dcp", "tensor", 64)]
    results = [*run(8), *all_of_it, skipped("streamed", "fsdp", 64, "takes 13.5 GB of host memory in all ranks")]
    lines = terminal_lines(rows(results), 80)
    shown = [line.split()[:3] for line in lines if line.startswith("dcp ")]
    assert shown == [["dcp", "fsdp", "8"], ["dcp", "tensor", "64"]]
    assert [line for line in lines if "skipped:" in line] == [
        "dcp-small: skipped: its reader wants bytes",
        "streamed fsdp x64-small: skipped: takes 13.5 GB of host memory in all ranks",
    ]


def test_what_a_division_cannot_do_is_said_once() -> None:
    uneven = "8 ranks cannot share 4 heads"
    refused = [skipped(name, "tensor", 64, uneven) for name in ("streamed", "dcp")]

    def told(*others: CaseResult) -> str:
        [line] = [line for line in terminal_lines(rows([*run(8), *refused, *others]), 80) if "cannot share" in line]
        return line

    assert told() == f"tensor x64-small: skipped: {uneven}"
    assert told(taken("mmap_shards", "tensor", 64)) == f"streamed tensor x64-small, dcp-small: skipped: {uneven}"
