"""The comparison that a run is asked for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ComparisonRequest:
    """The runs to compare a run with, and the changes that fail it. Thresholds are fractions; None: nothing fails.

    `compare`: False, True for all recorded runs, or the name of some. `required`: a run without a comparison fails.
    `accept`: what is worse does not. `show`: nothing is run, and the history is shown.
    """

    compare: str | bool
    memory_threshold: float | None
    time_threshold: float | None
    required: bool
    accept: bool
    show: bool
