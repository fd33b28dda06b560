"""Deviation of simulated loads from loads that were measured on a GPU, and its limits."""

from bench.record.record import FIGURES, Record

# By how much a simulated figure may be off, as a fraction.
TOLERANCES = {
    one.name: one.compared.simulated for one in FIGURES if one.compared and one.compared.simulated is not None
}


def deviations(recorded: Record, simulated: Record, torch_version: str) -> list[str]:
    """Return a line for every figure in which a simulated load is further from a recorded one than it may be."""
    return [
        f"{recorded.strategy}-{recorded.size}: {figure} is {found:,} simulated, and "
        f"{expected:,} on {recorded.device} with torch {torch_version}: "
        f"{abs(found / expected - 1):.3%} off, where {tolerance:.1%} are allowed"
        for figure, tolerance in TOLERANCES.items()
        for found, expected in [(simulated.value(figure), recorded.value(figure))]
        if abs(found - expected) > tolerance * expected
    ]
