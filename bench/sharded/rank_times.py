"""Times of a load by many ranks, as fields of a record."""

from collections.abc import Mapping
from statistics import median

from bench.meters.clock import Readings
from bench.record.record import Fields


def slowest(readings: Mapping[int, Readings], state_bytes: int) -> Fields:
    """Return medians of rounds, each as long as its slowest rank, from the readings of every rank's clock."""

    def seconds(name: str) -> list[float]:
        return [max(of_a_round) for of_a_round in zip(*(getattr(one, name) for one in readings.values()), strict=True)]

    load_seconds = seconds("load_seconds")
    return {
        "load_seconds": median(load_seconds),
        "first_logits_seconds": median(seconds("first_logits_seconds")),
        "bytes_per_second": state_bytes / median(load_seconds),
        "per_rank": [
            {"rank": rank, "load_seconds": median(one.load_seconds), "minor_faults": median(one.minor_faults)}
            for rank, one in readings.items()
        ],
    }
