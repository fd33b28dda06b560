"""Collected tests of a run: the measurement of each one, and their order."""

from collections.abc import Sequence
from typing import TypeVar

import pytest

from bench.conformance.conformance_case import ConformanceCase
from bench.measure.case import Case
from bench.plugin.settings import Settings
from model.layouts.foreign import ALL_LAYOUTS

# What is done with one checkpoint, in this order, and then the rest: that may evict it from the page cache.
STEPS = ("own_equivalence", "peak_memory", "limit", "load_time")

Parameter = TypeVar("Parameter")


def case_of(item: pytest.Item) -> Case | None:
    """Return the case that a test measures; None where it measures nothing."""
    return _parameter(item, "case", Case)


def conformance_case_of(item: pytest.Item) -> ConformanceCase | None:
    """Return the conformance case that a test tries; None where it tries none."""
    return _parameter(item, "conformance_case", ConformanceCase)


def arranged(items: Sequence[pytest.Item], chosen: Settings) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """Return the tests to run, in order, and those that have nothing to measure.

    Everything with one checkpoint is done before the next is made: the disk may not hold both. Memory comes first: what
    its record says of the device is what a row of the table is about. Tests that measure nothing come last.
    """
    nothing_real = chosen.real_device is None
    # Where there is nothing to measure, pytest makes one item of a test that it would skip. A user whose model is
    # measured, or who measures ranks, needs no other tests.
    idle = [
        item
        for item in items
        if _lacks(item, "case", Case)
        or (nothing_real and item.get_closest_marker("real_device"))
        or ((chosen.own or chosen.sharded) and case_of(item) is None and not conformance_case_of(item))
    ]

    def place(item: pytest.Item) -> tuple[int, tuple[int, str], tuple[int, int]]:
        case = case_of(item)
        if case is None:
            return len(chosen.sizes), (0, ""), (0, 0)
        order = list(ALL_LAYOUTS).index(case.layout), case.specification.family
        step = next((number for number, name in enumerate(STEPS) if name in item.name), len(STEPS))
        # A user who writes a loader wants to know first if it is wrong.
        first = step == 0 and case.user_strategy is not None
        place_of_strategy = -1 if first else chosen.strategies.index(case.strategy_name)
        return chosen.sizes.index(case.size), order, (step, place_of_strategy)

    return sorted((item for item in items if item not in idle), key=place), idle


def _parameter(item: pytest.Item, name: str, kind: type[Parameter]) -> Parameter | None:
    callspec = getattr(item, "callspec", None)
    value = callspec.params.get(name) if callspec else None
    return value if isinstance(value, kind) else None


def _lacks(item: pytest.Item, name: str, kind: type) -> bool:
    """Return whether a test has a parameter with no value."""
    return name in getattr(item, "fixturenames", ()) and _parameter(item, name, kind) is None
