"""Steps of a series: a fit that neither noise nor a single bad night misleads."""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate, pairwise
from math import log, sqrt
from statistics import median

# A level is one that was seen as often.
SHORTEST = 2

# Of the lengths of intervals: how long one is against the next longer.
_DECAY = sqrt(1 / 2)
# Intervals that are shorter begin at every place: they see a step in their middle, or they misplace it.
_EVERYWHERE = 16

# Beyond so many times of what chance makes of the largest of all contrasts there is a step; by simulation.
_CAUTION = 1.6


def steps(values: Sequence[float]) -> list[int]:
    """Return the indices at which a new level begins, in a series of positive values whose noise multiplies them.

    Narrowest-over-threshold (Baranowski, Chen and Fryzlewicz, JRSS B 81, 2019) on the intervals of seeded binary
    segmentation (Kovács, Bühlmann, Li and Munk, Biometrika 110, 2023): of all intervals with a contrast that chance
    does not explain the shortest has exactly one step in it. Levels are means on a logarithmic scale; what is far from
    its neighbours counts as less far, so that one value makes no level.
    """
    logs = [log(value) for value in values]
    noise, calm = _noise(logs), calmed(logs)
    sums = [0.0, *accumulate(calm)]
    limit = noise * _CAUTION * sqrt(2 * log(len(values))) * _of_few(len(values)) if len(values) > 1 else 0
    found = sorted(_split(calm, sums, limit, 0, len(values)))
    while (settled := _settle(sums, limit, found)) != found:
        found = settled
    return found


def _noise(logs: Sequence[float]) -> float:
    """The standard deviation around a level that may move: of neighbours, most are on the same."""
    differences = [abs(after - before) for before, after in pairwise(logs)]
    return max(1.4826 * median(differences) / sqrt(2), 1e-9) if differences else 0.0


def _of_few(count: int) -> float:
    """Return the factor of caution for noise that is known from few values."""
    return 1 + 8 / count


def _middle(few: Sequence[float]) -> float:
    """The median: `statistics.median` takes five times as long for so few."""
    half, ordered = len(few) // 2, sorted(few)
    return ordered[half] if len(few) % 2 else (ordered[half - 1] + ordered[half]) / 2


def calmed(logs: Sequence[float]) -> list[float]:
    """Values without outliers: what is far from its neighbours, in units of the noise, is put nearer."""
    noise = _noise(logs)
    around = [_middle(logs[max(0, index - 2) : index + 3]) for index in range(len(logs))]
    return [min(max(value, middle - 3 * noise), middle + 3 * noise) for value, middle in zip(logs, around, strict=True)]


def _split(calm: Sequence[float], sums: Sequence[float], limit: float, start: int, end: int) -> Iterator[int]:
    """Every step between two places: the plainest in the shortest intervals that have one, then on both sides."""
    for intervals in _intervals(start, end):
        spread = _least_spread(limit, intervals[0][1] - intervals[0][0])
        wide = (one for one in intervals if max(values := calm[slice(*one)]) - min(values) > spread)
        contrast, step = max((best_step(sums, left, right) for left, right in wide), default=(0.0, 0))
        if contrast > limit:
            yield step
            yield from _split(calm, sums, limit, start, step)
            yield from _split(calm, sums, limit, step, end)
            return


def _least_spread(limit: float, count: int) -> float:
    """From the least of some values to the greatest, if they have a contrast above `limit`; a little less, for sums.

    Two means differ by no more, and a contrast is at most half the root of the count times their difference.
    """
    return (1 - 1e-6) * 2 * limit / sqrt(count)


def _settle(sums: Sequence[float], limit: float, found: Sequence[int]) -> list[int]:
    """Every step where it is best between its neighbours; what a short interval had only half in view is none."""
    settled: list[int] = []
    for after in [*found[1:], len(sums) - 1] if found else []:
        before = settled[-1] if settled else 0
        if after - before >= 2 * SHORTEST:
            contrast, step = best_step(sums, before, after)
            settled += [step] if contrast > limit else []
    return settled


def _intervals(start: int, end: int) -> Iterator[list[tuple[int, int]]]:
    """Intervals of all lengths, the shortest first: the short ones everywhere, longer ones overlap by half."""
    count, lengths = end - start, []
    length = float(count)
    while length >= 2 * SHORTEST:
        lengths.append(int(length))
        length *= _DECAY
    for whole in reversed(lengths):
        many = count - whole + 1 if whole < _EVERYWHERE else 2 * -(-count // whole) - 1
        shift = (count - whole) / max(many - 1, 1)
        lefts = [start + round(index * shift) for index in range(many)]
        yield [(left, left + whole) for left in lefts]


def best_step(sums: Sequence[float], left: int, right: int) -> tuple[float, int]:
    """The largest contrast of two levels in an interval, in standard deviations of one value, and where it is."""
    count, before, total = right - left, sums[left], sums[right] - sums[left]
    inside = sums[left + SHORTEST : right - SHORTEST + 1]
    shares, weights = _weights(count)
    contrasts = [
        (so_far - before - total * share) * weight
        for so_far, share, weight in zip(inside, shares, weights, strict=True)
    ]
    highest, lowest = max(contrasts), min(contrasts)
    # Of equal ones the last.
    last = [right - SHORTEST - contrasts[::-1].index(one) for one in (highest, lowest)]
    return max((highest, last[0]), (-lowest, last[1]))


@cache
def _weights(count: int) -> tuple[list[float], list[float]]:
    """For every place of a step in an interval: the share of its values before it, and what a difference counts."""
    places = range(SHORTEST, count - SHORTEST + 1)
    return [many / count for many in places], [sqrt(count / (many * (count - many))) for many in places]
