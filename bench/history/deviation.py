"""The deviation that a simulated load may have from one that a GPU was measured at."""

from bench.record.record import Record

# What live tensors ask for is the same everywhere; what the allocator makes of it differs a little by version.
TOLERANCES = {
    "device_requested_peak_bytes": 0.0,
    "device_allocated_peak_bytes": 0.005,
    "device_reserved_peak_bytes": 0.02,
}


def deviations(recorded: Record, simulated: Record, torch_version: str) -> list[str]:
    """Every figure in which a simulated load is further from a recorded one than it may be, a line each."""
    return [
        f"{recorded['strategy']}-{recorded['size']}: {figure} is {simulated[figure]:,} simulated, and "
        f"{recorded[figure]:,} on {recorded['device']} with torch {torch_version}: "
        f"{abs(simulated[figure] / recorded[figure] - 1):.3%} off, where {tolerance:.1%} are allowed"
        for figure, tolerance in TOLERANCES.items()
        if abs(simulated[figure] - recorded[figure]) > tolerance * recorded[figure]
    ]
