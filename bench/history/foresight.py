"""The range of a run's times, by those before it: alone, or beside what the machine could do at best."""

from collections.abc import Sequence
from math import log
from typing import NamedTuple

from bench.history.runs import Key, Run
from bench.history.spread import FEWEST, expected, usual_spread
from bench.history.steps import steps

# Times are held against earlier ones beside the machine's limit if that leaves to chance less than this part of what
# chance explains of the times alone: a choice between nearly equal ones would find changes where there are none.
LIMITED = 0.5

Values = Sequence[tuple[Run, float]]


class Window(NamedTuple):
    """A time of a benchmark in the last runs, oldest first, and the machine's limit in this run."""

    before: Values
    key: Key
    limit: float | None


class Foreseen(NamedTuple):
    """Seconds of a load without a change, the lowest and highest that chance explains, and the number of runs before.

    `limited`: the times before count as if the machine had then had the limit of this run.
    """

    then: float
    lowest: float
    highest: float
    runs: int
    limited: bool


def foresee(windows: Sequence[Window]) -> list[Foreseen]:
    """The range of every figure of a run, by its window since the level last moved; see `spread.expected`.

    Other work on the machine slows a load and the limit down alike. Beside the limit that is left out, but the limit
    adds a spread of its own: it has to halve what chance explains.
    """
    alone = _all_foreseen([same_level(window.before) for window in windows], len(windows), limited=False)
    beside = {number: values for number, window in enumerate(windows) if (values := _beside_limit(window))}
    levels = [same_level(values) for values in beside.values()]
    limited = dict(zip(beside, _all_foreseen(levels, len(windows), limited=True), strict=True))
    return [
        limited[number] if number in limited and _room(limited[number]) < LIMITED * _room(one) else one
        for number, one in enumerate(alone)
    ]


def _all_foreseen(levels: Sequence[Values], figures: int, *, limited: bool) -> list[Foreseen]:
    numbers = [[value for _, value in level] for level in levels]
    usual = usual_spread(numbers)
    return [Foreseen(*expected(values, figures, usual), len(values), limited) for values in numbers]


def _room(one: Foreseen) -> float:
    """The width that chance explains, on a logarithmic scale."""
    return log(one.highest / one.then)


def _beside_limit(window: Window) -> Values:
    """The times of the runs before with the limit of this run; none if a limit is not known."""
    limits = [run.records[window.key].limit_bytes_per_second for run, _ in window.before]
    if not window.limit or not all(limits):
        return ()
    return [
        (run, value * limit / window.limit) for (run, value), limit in zip(window.before, limits, strict=True) if limit
    ]


def same_level(window: Values) -> Values:
    """The runs since the level last moved, if they tell a spread: a gain is not to hide that it is lost again."""
    begins = [begin for begin in steps([value for _, value in window]) if len(window) - begin >= FEWEST]
    return window[begins[-1] :] if begins else window
