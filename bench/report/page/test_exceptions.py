from bench.record.record import Record
from bench.record.row_key import RowKey
from bench.report.budget_marks import TOO_BIG
from bench.report.page.exceptions import exceptions, heading
from bench.report.rows import Problem, Row, Status

FAILED, REFUSED = Problem(Status.FAILED, "a.weight differs"), Problem(Status.REFUSED, "no <a>")


def row(key: RowKey, *problems: Problem, **record: object) -> Row:
    return Row(key, Record.read(record), problems)


def test_loads_with_one_reason_share_a_line_and_failures_come_first() -> None:
    table = [
        row(RowKey("a", "small"), REFUSED),
        row(RowKey("b", "small"), REFUSED),
        row(RowKey("c", "small"), fits=False, fate="killed"),
        row(RowKey("d", "small"), FAILED),
        row(RowKey("e", "small")),
    ]
    found = exceptions(table)
    assert [(line.status, line.names, line.reason) for line in found] == [
        (Status.FAILED, "d-small", "a.weight differs"),
        (TOO_BIG, "c-small", "killed"),
        (Status.REFUSED, "a-small, b-small", "no <a>"),
    ]
    assert heading(found) == "Failed, too big and refused loads"
    assert heading(found[:1]) == "Failed loads"


def test_a_reason_that_a_later_test_repeats_is_said_once() -> None:
    again = Problem(Status.FAILED, f"WrongModel: {FAILED.reason}")
    assert [line.reason for line in exceptions([row(RowKey("a", "small"), FAILED, again)])] == [FAILED.reason]
    other = Problem(Status.FAILED, "leak")
    assert len(exceptions([row(RowKey("a", "small"), FAILED, other)])) == 2


def test_a_strategy_that_no_number_of_ranks_helps_is_named_once() -> None:
    keys = [RowKey("dcp", "small", "fsdp", ranks) for ranks in (8, 64)]
    assert [line.names for line in exceptions([row(key, REFUSED) for key in keys])] == ["dcp-small"]
    [line] = exceptions([row(keys[0], REFUSED), row(keys[1])])
    assert line.names == "dcp fsdp x8-small"
