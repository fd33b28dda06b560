import pytest

from bench.history.deviation import TOLERANCES, deviations
from bench.record.record import Record


def record(**changed: int) -> Record:
    return Record.read(
        {"strategy": "sequential", "size": "xl", "device": "cuda:0"} | dict.fromkeys(TOLERANCES, 1_000_000) | changed
    )


def test_a_simulation_that_agrees_deviates_in_nothing() -> None:
    assert deviations(record(), record(), "2.13.0") == []


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("figure", "allowed"),
    [
        ("device_requested_peak_bytes", 0),
        ("device_allocated_peak_bytes", 5_000),
        ("device_reserved_peak_bytes", 20_000),
    ],
)
def test_what_is_beyond_its_tolerance_is_named(figure: str, allowed: int, sign: int) -> None:
    assert deviations(record(), record(**{figure: 1_000_000 + sign * allowed}), "2.13.0") == []
    [line] = deviations(record(), record(**{figure: 1_000_000 + sign * (allowed + 1)}), "2.13.0")
    assert line.startswith(f"sequential-xl: {figure} is ")
    assert "1,000,000 on cuda:0 with torch 2.13.0: " in line
