"""Stretches in which a series crept: each run a little further than the last, and never a step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import exp, log, sqrt

from bench.history.steps import best_step, calmed
from bench.history.student import share_within, t_around

# Fewer runs do not tell a line from a step.
SHORTEST = 10

# In how many histories without a change one series or more is said to have crept.
FALSE_ALARMS = 0.005

# Of the lengths of intervals: how long one is against the next longer.
_DECAY = sqrt(1 / 2)


@dataclass(frozen=True)
class Creep:
    """The places from `start` to before `end`, and the values of the line through them at its first and last one."""

    start: int
    end: int
    before: float
    after: float


def creeps(values: Sequence[float], begins: Sequence[int], series: int) -> list[Creep]:
    """Every stretch of positive values, whose noise multiplies them, that a line describes better than levels do.

    `begins` are the steps that were found. Of `series` that are looked at together each gets its part of the error, and
    of a series every interval (Bonferroni). A stretch is the interval with the largest Student's t of a slope, made
    longer or shorter while that grows; where neighbours are alike, its t counts for less. The line has to describe the
    stretch better than the steps in it do, and better than the best single step: by Schwarz, "Estimating the Dimension
    of a Model", Annals of Statistics 6 (1978).
    """
    if len(values) < SHORTEST:
        return []
    line = _Line(calmed([log(value) for value in values]))
    lengths = list(_lengths(len(values)))
    chance = 1 - FALSE_ALARMS / sum(len(lefts) for _, lefts in lengths) / series
    plain = sorted((one for length, lefts in lengths for one in line.plain(length, lefts, chance)), reverse=True)
    found: list[Creep] = []
    for _, interval in plain:
        low = max((one.end for one in found if one.end <= interval[0]), default=0)
        high = min((one.start for one in found if one.start >= interval[1]), default=len(values))
        if any(one.start < interval[1] and interval[0] < one.end for one in found):
            continue
        start, end = line.widened(*interval, low, high)
        if line.beyond(start, end, chance, line.alike(start, end)) and line.is_no_step(start, end, begins):
            mean, slope, _ = line.fit(start, end)
            half = slope * (end - start - 1) / 2
            found.append(Creep(start, end, exp(mean - half), exp(mean + half)))
    return sorted(found, key=lambda one: one.start)


def _lengths(count: int) -> Iterator[tuple[int, list[int]]]:
    """Lengths of intervals, and where those of each begin: they overlap by half."""
    length = float(count)
    while length >= SHORTEST:
        whole = int(length)
        many = 2 * -(-count // whole) - 1
        yield whole, [index * (count - whole) // max(many - 1, 1) for index in range(many)]
        length *= _DECAY


class _Line:
    """Least squares in any interval of a series: a few sums that are made once."""

    def __init__(self, logs: Sequence[float]) -> None:
        self._logs = logs
        self._sums = [0.0, *accumulate(logs)]
        self._squares = [0.0, *accumulate(one * one for one in logs)]
        self._moments = [0.0, *accumulate(place * one for place, one in enumerate(logs))]

    def plain(self, count: int, lefts: Sequence[int], chance: float) -> Iterator[tuple[float, tuple[int, int]]]:
        """Yield the intervals of one length whose slope is beyond chance, each behind its t; most are not."""
        sums, squares, moments = self._sums, self._squares, self._moments
        limit = t_around(chance, count - 2) ** 2
        width = count * (count * count - 1) / 12
        # `t` squared is beyond the limit where the line explains more than this share of the squares.
        share = limit / (limit + count - 2)
        for left in lefts:
            end = left + count
            total = sums[end] - sums[left]
            moment = moments[end] - moments[left] - total * (left + end - 1) / 2
            if moment * moment > share * width * (squares[end] - squares[left] - total * total / count):
                yield abs(self.t(left, end)), (left, end)

    def fit(self, start: int, end: int) -> tuple[float, float, float]:
        """Mean and slope of the line through an interval, and the sum of squares that it leaves."""
        count = end - start
        total = self._sums[end] - self._sums[start]
        width = count * (count * count - 1) / 12
        slope = (self._moments[end] - self._moments[start] - total * (start + end - 1) / 2) / width
        left = self._left(start, end) - slope * slope * width
        # Sums of a few rounding errors each.
        return total / count, slope, max(left, 1e-12)

    def t(self, start: int, end: int) -> float:
        """Student's t of the slope."""
        count = end - start
        _, slope, left = self.fit(start, end)
        return slope * sqrt(count * (count * count - 1) / 12 * (count - 2) / left)

    def beyond(self, start: int, end: int, chance: float, alike: float = 1.0) -> bool:
        """Return whether so much of what chance does is nearer to no slope; `alike`: see there."""
        return share_within(abs(self.t(start, end)) / alike, end - start - 2) > chance

    def widened(self, start: int, end: int, low: int, high: int) -> tuple[int, int]:
        """The interval with its ends moved, between two places, as long as t grows."""
        while True:
            moved = [(start - 1, end), (start, end + 1), (start + 1, end), (start, end - 1)]
            fits = [one for one in moved if one[0] >= low and one[1] <= high and one[1] - one[0] >= SHORTEST]
            best = max(fits, key=lambda one: abs(self.t(*one)), default=(start, end))
            if abs(self.t(*best)) <= abs(self.t(start, end)):
                return start, end
            start, end = best

    def alike(self, start: int, end: int) -> float:
        """Return how much neighbours that are alike enlarge t: the root of (1 + r) / (1 - r), r their correlation."""
        mean, slope, left = self.fit(start, end)
        middle = (start + end - 1) / 2
        off = [self._logs[place] - mean - slope * (place - middle) for place in range(start, end)]
        r = min(max(sum(one * other for one, other in pairwise(off)) / left, 0.0), 0.9)
        return sqrt((1 + r) / (1 - r))

    def is_no_step(self, start: int, end: int, begins: Sequence[int]) -> bool:
        """Return whether a line describes an interval better than the steps in it do, and better than the best one."""
        inside = [begin for begin in begins if start < begin < end]
        _, best = best_step(self._sums, start, end)
        count = end - start
        line = _cost(self.fit(start, end)[2], 2, count)
        for cuts in (inside, [best]):
            left = sum(self._left(*level) for level in pairwise([start, *cuts, end]))
            if _cost(left, 2 * len(cuts) + 1, count) <= line:
                return False
        return True

    def _left(self, start: int, end: int) -> float:
        """The sum of squares around the mean."""
        total = self._sums[end] - self._sums[start]
        return self._squares[end] - self._squares[start] - total * total / (end - start)


def _cost(left: float, parameters: int, count: int) -> float:
    """Schwarz's criterion of a description, from the sum of squares that it leaves."""
    return count * log(max(left, 1e-12) / count) + parameters * log(count)
