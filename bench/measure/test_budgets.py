"""Tests of budgets on a command line, and of loads whose bounds fit them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from bench.conftest import Measure
from bench.measure import budgets
from bench.measure.budgets import (
    MOST_RESERVED,
    SEGMENTS_BYTES,
    as_fields,
    budgeted_load,
    expected_to_fit,
    smallest_budgets,
    tried,
    unexpected,
)
from bench.measure.case import Case
from bench.measure.expected import blank_record
from bench.measure.terms import host_slack_bytes
from bench.meters.budget import Budget, BudgetOutcome, empty_process_bytes
from bench.plugin.history_scope import belongs
from bench.plugin.test_options import chosen
from bench.record.record import Record
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.specification import Specification

GIB = 2**30
EMPTY = 200 * 2**20


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("8GiB", 8 * GIB),
        ("8 gib", 8 * GIB),
        ("1.5GiB", 3 * GIB // 2),
        ("800MB", 800_000_000),
        ("4TiB", 4096 * GIB),
        ("4194304", 4194304),
        ("4194304B", 4194304),
        ("4096KiB", 4194304),
    ],
)
def test_an_amount_is_read_as_people_write_it(text: str, count: int) -> None:
    assert chosen(device_memory=text, device="sim").budget == Budget(device_bytes=count)
    assert chosen(host_memory=text).budget == Budget(host_bytes=count)


def test_a_budget_that_is_no_longer_given_is_not_missed() -> None:
    def record(**fields: Any) -> Record:
        return blank_record(Case("baseline", "small", "sim", "float32")).with_fields(fields)

    trial = record(device_budget_bytes=8 * GIB, fits=True)
    assert not belongs(chosen(), trial)
    assert belongs(chosen(device_memory="8GiB"), trial)
    assert not belongs(chosen(device_memory="7GiB"), trial)
    assert not belongs(chosen(), record(smallest_tolerance_bytes=1))
    assert belongs(chosen(find_minimum=True), record(smallest_tolerance_bytes=1))
    assert belongs(chosen(device_memory="8GiB", find_minimum=True), record())


@pytest.fixture(scope="module")
def planned_trial(
    planned_checkpoint: Callable[[Specification], Checkpoint], real_checkpoint: Callable[[Specification], Checkpoint]
) -> Callable[[str, Budget], BudgetOutcome]:
    """Plans a load of small, by a strategy and with a budget."""

    def outcome(strategy: str, budget: Budget) -> BudgetOutcome:
        case = Case(strategy, "small", "sim", "float32", planned=True)
        return tried(case, planned_checkpoint(case.specification), real_checkpoint(case.rehearsal), budget)

    return outcome


def test_a_plan_fits_the_host_with_its_private_peak_and_an_empty_process_and_no_byte_less(
    planned_trial: Callable[[str, Budget], BudgetOutcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`load_assign` holds the largest tensor of small, 147.2 MiB, on the host."""
    monkeypatch.setattr(budgets, "planned_empty_bytes", lambda: EMPTY)
    largest = 154_389_504
    fitting = planned_trial("load_assign", Budget(GIB, EMPTY + largest))
    assert (fitting.fits, fitting.failure_reason, fitting.planned_bytes) == (True, "", largest)
    dying = planned_trial("load_assign", Budget(GIB, EMPTY + largest - 1))
    assert not dying.fits
    assert (
        dying.failure_reason
        == "out of host memory: the load takes 147.2 MiB and an empty process 200 MiB, of 347.2 MiB"
    )
    assert as_fields(Budget(GIB, 300), dying) == {
        "device_budget_bytes": GIB,
        "host_budget_bytes": 300,
        "fits": False,
        "fate": dying.failure_reason,
    }


def test_a_plan_that_is_out_of_device_memory_says_so_whatever_its_host_has(
    planned_trial: Callable[[str, Budget], BudgetOutcome],
) -> None:
    outcome = planned_trial("load_assign", Budget(400 * 2**20, GIB))
    assert not outcome.fits
    assert outcome.failure_reason.startswith("out of device memory at ")


CPU, SIM = (Case("baseline", "small", device, "float32") for device in ("cpu", "sim"))
S = CPU.specification.footprint.state_bytes
SLACK = host_slack_bytes(S, CPU.specification.footprint.tensors)
CERTAIN = int(2 * S * MOST_RESERVED) + SEGMENTS_BYTES + 1


@pytest.mark.parametrize(
    ("load", "allowed", "lives"),
    [
        (CPU, Budget(host_bytes=EMPTY + 2 * S + SLACK), True),
        (CPU, Budget(host_bytes=EMPTY + 2 * S + SLACK - 1), None),
        (CPU, Budget(host_bytes=EMPTY + 2 * S - SLACK), None),
        (CPU, Budget(host_bytes=EMPTY + 2 * S - SLACK - 1), False),
        (SIM, Budget(device_bytes=2 * S - 1), False),
        (SIM, Budget(device_bytes=2 * S), None),
        (SIM, Budget(device_bytes=CERTAIN), True),
        (SIM, Budget(CERTAIN, EMPTY + S), None),
        (SIM, Budget(CERTAIN, EMPTY + S // 2), False),
        (SIM, Budget(S, EMPTY + S // 2), False),
        (replace(CPU, strategy_name="mmap_assign"), Budget(host_bytes=EMPTY + SLACK), True),
    ],
)
def test_theory_says_who_lives_where_it_is_certain(load: Case, allowed: Budget, lives: bool | None) -> None:
    assert expected_to_fit(load, allowed, EMPTY) is lives


STATE_BYTES = 34_782_720


@pytest.mark.parametrize(
    ("strategy", "lived", "message"),
    [
        ("baseline", True, "it finished, and by its bounds it does not fit: a bound or the limit is wrong"),
        ("mmap_assign", False, "it ran out of memory, and by its bounds it fits: mended"),
        ("baseline", False, None),
        ("mmap_assign", True, None),
    ],
)
def test_a_limit_that_does_not_limit_fails(strategy: str, lived: bool, message: str | None) -> None:
    case, empty = Case(strategy, "tiny", "cpu", "float32"), 200 * 2**20
    budget, outcome = Budget(host_bytes=empty + STATE_BYTES // 2), BudgetOutcome(lived, "mended", empty)
    assert [problem.message for problem in unexpected(case, budget, outcome)] == ([message] if message else [])


def test_the_smallest_budgets_are_found(
    load: Measure, real_checkpoint: Callable[[Specification], Checkpoint], with_cgroups: None
) -> None:
    case = Case("sequential", "tiny", "sim", "float32")
    loaded = budgeted_load(case, real_checkpoint(case.specification), real_checkpoint(case.rehearsal))
    found = smallest_budgets(loaded, STATE_BYTES, "sim")
    tolerance = found["smallest_tolerance_bytes"]
    reserved, empty = load(case).device.reserved_bytes, empty_process_bytes(60.0)
    assert reserved is not None
    assert reserved <= found["smallest_device_bytes"] < reserved + tolerance
    assert empty + STATE_BYTES - 12 * 2**20 < found["smallest_host_bytes"] < empty + STATE_BYTES + 16 * 2**20
