from typing import Any

from bench.conformance.judge import CellStatus
from bench.conformance.sweep import Cell
from bench.report.advice.from_rows import chosen, suggested
from bench.report.advice.table_rows import MIB, rank_row, row
from bench.report.rows import Problem, Row, Status


def measured(strategy: str, **record: Any) -> Row:
    """Return the row of a load that was given no budget."""
    known: dict[str, Any] = {"fits": None, "device_budget_bytes": None, "host_total_peak_bytes": 0}
    return row(strategy, **known | record)


def test_without_a_budget_the_least_memory_is_recommended_with_command_and_code() -> None:
    advice = suggested([measured("baseline", device_peak_ratio=2.0), measured("streamed", host_private_peak_bytes=MIB)])
    assert advice
    assert (
        advice.paragraph == "Use streamed for small on one device. It takes 1 GiB of the device and 1 MiB of the host."
    )
    assert advice.command == "pytest bench --sizes small --device cuda --strategies streamed"
    assert advice.usage
    assert "def streamed(" in (advice.code() or "")


def test_of_a_users_model_the_command_names_it_and_the_users_loaders() -> None:
    own = {"model": "mine.py:net", "device": "sim"}
    advice = suggested(
        [measured("mine", loader="mine.py:mine", **own), measured("baseline", device_peak_ratio=2.0, **own)]
    )
    assert advice
    assert advice.command == "pytest bench --model mine.py:net --loader mine.py:mine --strategies mine"
    assert advice.code() is None


def test_what_failed_or_was_refused_or_loads_models_wrongly_is_not_recommended() -> None:
    broken = [
        measured("streamed", problem=Problem(Status.FAILED, "no")),
        measured("mmap_assign", problem=Problem(Status.REFUSED, "no")),
        measured("flashpack"),
    ]
    wrong = Cell("flashpack", "plain", CellStatus.WRONG, 1)
    assert chosen(broken, [wrong]) == []
    # To accept a checkpoint that does not fit is no reason.
    assert chosen(broken, [Cell("flashpack", "missing", CellStatus.WRONG, 1)]) == [broken[2]]


def test_with_a_budget_it_is_of_what_fits_and_the_advice_is_the_recorded_one() -> None:
    table = [row("streamed", fits=False), row("baseline")]
    assert chosen(table) == [table[1]]
    assert suggested(table) is None


def test_nothing_is_recommended_of_nothing() -> None:
    assert chosen([]) == []
    assert suggested([]) is None


def test_of_ranks_the_fewest_are_recommended_without_a_script() -> None:
    planned: dict[str, Any] = {"fits": None, "device_budget_bytes": None, "host_total_peak_bytes": 0}
    advice = suggested([rank_row("streamed", ranks, **planned) for ranks in (64, 8)])
    assert advice
    assert advice.paragraph.startswith("Use streamed for small on 8 devices, divided by fsdp. It takes 1 GiB of each")
    assert advice.command.startswith("torchrun ")
    assert advice.usage == ()
