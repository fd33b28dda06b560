"""How long the rest of a run is likely to take, and how that is said in what is left of a line."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from math import ceil

BYTES, TESTS = "bytes", "tests"

MINUTE, HOUR = 60, 3600


@dataclass(frozen=True)
class Work:
    """What a test has to do: bytes to load, or of no known size, and then it is one test."""

    function: str
    amount: int = 1
    unit: str = TESTS


@dataclass(frozen=True)
class Done:
    work: Work
    seconds: float


def seconds_left(done: Sequence[Done], rest: Collection[Work]) -> float | None:
    """What is likely from what is done; None where nothing like some of the rest is.

    A function is as fast as it was; one that has not run is as fast as those that have the same unit of work.
    """
    by_function = _seconds_per_unit((one.work.function, one) for one in done)
    by_unit = _seconds_per_unit((one.work.unit, one) for one in done)
    if any(work.unit not in by_unit for work in rest):
        return None
    return sum(by_function.get(work.function, by_unit[work.unit]) * work.amount for work in rest)


def _seconds_per_unit(done: Iterable[tuple[str, Done]]) -> dict[str, float]:
    """How fast all of a name was, by name."""
    seconds: dict[str, float] = defaultdict(float)
    amounts: dict[str, int] = defaultdict(int)
    for name, one in done:
        seconds[name] += one.seconds
        amounts[name] += one.work.amount
    return {name: seconds[name] / amount for name, amount in amounts.items()}


def told(seconds: float) -> str:
    """As exactly as an estimate is worth: `40 s`, `5 min`, `1 h 10 min`."""
    if seconds <= MINUTE - 5:
        return f"{max(5, 5 * ceil(seconds / 5))} s"
    if (minutes := round(seconds / MINUTE)) < HOUR / MINUTE:
        return f"{minutes} min"
    hours, minutes = divmod(10 * round(seconds / (10 * MINUTE)), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def status(name: str, place: str, seconds: float | None, width: int) -> str:
    """What runs, which of all it is, and how long the rest takes, in `width` columns: what matters least goes first."""
    left = [] if seconds is None else [f"about {told(seconds)} left"]
    said = [name, place, *left]
    while said and len(", ".join(said)) > width:
        said.pop(0)
    return ", ".join(said)
