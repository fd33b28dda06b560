"""Times of a load, as fields of a record."""

from statistics import median, median_low

from bench.measure.checks import FailedCheck
from bench.meters.clock import Readings
from bench.record.record import Fields


def ownership(readings: Readings, stated: str | None) -> str | None:
    """Return where the weights end, `mapped` or `owned`: as was seen, or else as is stated."""
    return {None: stated, True: "mapped", False: "owned"}[readings.mapped[-1]]


def wrong_ownership(readings: Readings, stated: str | None) -> list[FailedCheck]:
    """Return a problem if the weights end elsewhere than they are stated to: times would be of that."""
    seen = ownership(readings, stated)
    if stated in (None, seen):
        return []
    return [FailedCheck(f"the weights end {seen}, where its row in the table of strategies says {stated}")]


def times(readings: Readings, checkpoint_bytes: int, *, mapped: bool) -> Fields:
    """Return medians of the rounds, limits and loads in turn.

    A mapped model is charged for what its first forward pass fetches. One that owns its weights has fetched them, as
    its peaks tell: what its first pass takes longer than a later one is noise, and would be a quarter of the load.
    """
    limit = median(filter(None, readings.roofline_bytes_per_second))
    rates = [
        checkpoint_bytes / seconds for seconds in (readings.whole_load_seconds if mapped else readings.load_seconds)
    ]
    return {
        "load_seconds": median(readings.load_seconds),
        "first_logits_seconds": median(readings.first_logits_seconds),
        "forward_seconds": median(readings.forward_seconds),
        "bytes_per_second": median(rates),
        "limit_bytes_per_second": limit,
        "limit_fraction": median(rates) / limit,
        "minor_faults": median_low(readings.minor_faults),
        "major_faults": median_low(readings.major_faults),
    }
