from bench.record.record import Record
from bench.record.row_key import RowKey
from bench.report.page.pivot import PivotCell, pivots
from bench.report.rows import Problem, Row, Status, rows
from bench.selftest.sharded_run import plan, taken


def test_a_strategy_has_one_row_with_a_cell_for_each_number_of_ranks() -> None:
    [pivot] = pivots(rows(plan(2, 8, 64)))
    assert pivot.ranks == [2, 8, 64]
    assert [row[:2] for row in pivot.rows] == [
        ("load_then_shard", "fsdp"),
        ("streamed", "fsdp"),
        ("load_then_shard", "tensor"),
        ("streamed", "tensor"),
    ]
    assert {len(row[2]) for row in pivot.rows} == {3}


def test_a_cell_says_what_a_load_takes_whether_it_fits_and_what_became_of_it() -> None:
    skipped = Row(RowKey("dcp", "small", "fsdp", 8), Record(), (Problem(Status.SKIPPED, "no"),))
    loads = rows([taken("streamed", "fsdp", 8, fits=True), taken("streamed", "fsdp", 64, fits=False)])
    [pivot] = pivots([*loads, skipped])
    assert pivot.unit == "MiB"
    assert [row[2] for row in pivot.rows] == [
        [PivotCell("119", "15259", "fits"), PivotCell("14.9", "15259", "too big")],
        [PivotCell("skipped", "-", "skipped"), None],
    ]


def test_one_number_of_ranks_wants_no_such_table() -> None:
    assert pivots(rows(plan(8))) == []
    assert pivots([Row(RowKey("streamed", "small"), Record())]) == []
