"""The order of a metered load's checks. A second load explains a figure, but only if it is wrong or grew."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from bench.measure import checks
from bench.measure.case import Case
from bench.measure.checks import FailedCheck, MeteredProcess, findings
from bench.measure.terms import Terms
from bench.meters.allocations import LiveAllocation
from bench.record.record import Fields, Record

PEAK = "device_requested_peak_bytes"
ALIVE = {PEAK: (LiveAllocation(8, 1, "recipe.py:1", "load"),)}
CASE = Case("streamed", "tiny", "sim", "float32")


class Load:
    """A load by two ranks that measures nothing; `alive` is known from the start."""

    def __init__(self, alive: Mapping[str, Any] | None = None) -> None:
        self._alive, self.explained = alive or {}, 0

    def measure(self, *, explained: bool = False) -> Mapping[str, Any]:
        self.explained += explained
        return ALIVE

    def alive(self, measured: Mapping[str, Any]) -> Mapping[str, Any]:
        return measured

    def fields(self, _measured: object, _record: Record) -> Fields:
        return {PEAK: 8}

    def processes(self, _measured: object, record: Record) -> Iterator[MeteredProcess]:
        for rank in (0, 1):
            terms = Terms(state_bytes=1, largest_tensor_bytes=1)
            yield MeteredProcess(CASE, record, None, terms, rank)  # type: ignore[arg-type]


LEAK, WRONG = FailedCheck("leak"), FailedCheck("too much", PEAK)


@pytest.mark.parametrize(
    ("wrong", "grown", "known", "explain", "loads"),
    [
        ([], {}, {}, False, 0),
        ([LEAK], {}, {}, False, 0),
        ([WRONG], {}, {}, False, 1),
        ([WRONG], {}, ALIVE, False, 0),
        ([], {PEAK: "grew"}, {}, False, 1),
        ([], {}, {}, True, 1),
    ],
)
def test_a_second_load_explains_what_is_wrong_with_a_figure(
    monkeypatch: pytest.MonkeyPatch,
    wrong: list[FailedCheck],
    grown: dict[str, str],
    known: Mapping[str, Any],
    explain: bool,
    loads: int,
) -> None:
    monkeypatch.setattr(checks, "CHECKS", (lambda _: wrong,))
    load, record = Load(), Record()
    found = findings(load, record, known, lambda _: grown, explain=explain)
    assert load.explained == loads
    assert bool(record.alive_at_peak) == bool(loads or known)
    assert found.grown == [FailedCheck(message, figure) for figure, message in grown.items()]
    assert record.device_requested_peak_bytes == 8


def test_a_figure_is_wrong_once_and_leaks_are_of_every_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "CHECKS", (lambda _: [WRONG], lambda _: [LEAK]))
    found = findings(Load(), Record(), ALIVE, lambda _: {}, explain=False)
    assert found.problems == [
        FailedCheck("rank 0: too much", PEAK),
        FailedCheck("rank 0: leak"),
        FailedCheck("rank 1: leak"),
    ]
