"""At which runs the figures of benchmarks came to another level, over everything that was ever recorded."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise, product
from statistics import median

from bench.history.creep import Creep, creeps
from bench.history.runs import Change, Key, Run
from bench.history.steps import steps
from bench.record.field import Field
from bench.record.record import FIGURES, Record

# Of times: none is zero, unless a clock is broken.
TINY = 1e-9

# A benchmark, a figure of it, and the hardware where that matters.
Series = tuple[Key, Field, str]


@dataclass(frozen=True)
class ChangePoint:
    """The first run of a new level, and the levels before and after, as a change.

    Where a figure `crept`, it is the last of so many runs in which it did, and the change is that since the first.
    """

    run: Run
    change: Change
    since: Run | None = None
    crept: int = 0


def change_points(runs: Iterable[Run]) -> tuple[list[ChangePoint], int]:
    """Every change point of the runs, oldest first, and how many series were looked at.

    A series goes on where software changes, since that is what is to be found, and ends where hardware does. What
    failed is part of it: a regression that nobody accepts is seen here for as long as it stays.
    """
    runs = list(runs)
    every = _series(runs)
    found = [point for one, values in every.items() for point in _points(one, values, len(every))]
    order = {run.file: number for number, run in enumerate(runs)}
    return sorted(found, key=lambda point: order[point.run.file]), len(every)


def _series(runs: Iterable[Run]) -> dict[Series, list[tuple[Run, float]]]:
    by_key: dict[Key, list[tuple[Run, Record]]] = defaultdict(list)
    for run in runs:
        for key, record in run.records.items():
            by_key[key].append((run, record))
    found: dict[Series, list[tuple[Run, float]]] = {}
    for (key, records), figure in product(by_key.items(), FIGURES):
        measured = [(run, value) for run, record in records if (value := record.value(figure.name)) is not None]
        for place in dict.fromkeys("" if figure.anywhere else run.hardware for run, _ in measured):
            found[key, figure, place] = [one for one in measured if place in ("", one[0].hardware)]
    return found


def _points(series: Series, values: list[tuple[Run, float]], count: int) -> Iterator[ChangePoint]:
    """The change points of one of `count` series: steps, and stretches in which it crept instead."""
    key, figure, _ = series
    slack = figure.slack(planned=key.planned)
    numbers = [value for _, value in values]
    crept: list[Creep] = []
    if figure.is_seconds or slack:
        # A peak of next to nothing may double by chance.
        levels = [max(number, TINY) + slack for number in numbers]
        begins = steps(levels)
        crept = [one for one in creeps(levels, begins, count) if abs(one.after - one.before) > slack]
    else:
        begins = [index for index, (before, after) in enumerate(pairwise(numbers), 1) if before != after]
    for one in crept:
        (first, _), (run, _) = values[one.start], values[one.end - 1]
        change = Change(key, figure.name, one.before - slack, one.after - slack, first.name)
        yield ChangePoint(run, change, first, one.end - one.start)
    for start, begin, end in zip([0, *begins], begins, [*begins[1:], len(numbers)], strict=False):
        before, after = median(numbers[start:begin]), median(numbers[begin:end])
        if abs(after - before) > slack and not any(one.start < begin < one.end for one in crept):
            run, last = values[begin][0], values[begin - 1][0]
            yield ChangePoint(run, Change(key, figure.name, before, after, last.name))
