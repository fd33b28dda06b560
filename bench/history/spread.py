"""Prediction intervals: the range of a figure without a change, by the spread of the runs before."""

import sys
from collections.abc import Sequence
from math import exp, log, pi, sqrt
from statistics import median

from bench.history.student import t_around

# Of times the last so many runs count: a month of nights.
WINDOW = 30
# Fewer tell too little of their spread.
FEWEST = 6

# In how many runs without a change one figure or more is called changed.
FALSE_ALARMS = 0.005

# Of Rousseeuw and Croux: by how much Qn is too large for so few values.
_QN_OF_FEW = {2: 0.399, 3: 0.994, 4: 0.512, 5: 0.844, 6: 0.611, 7: 0.857, 8: 0.669, 9: 0.872}
_QN_OF_NORMAL = 2.2219

# Student's t with so many degrees of freedom a value fits where Qn stands for the standard deviation: found by
# simulation (`test_spread.py`), for 6 values and more.
_FREEDOM = 0.7

# With so much freedom more, a run of 14 figures without a change is called changed no more often: by simulation, with
# figures that have one noise or each their own, and that of one four times as large as that of the others. With 4, the
# last of these is called changed in 13 of 1,000 runs.
_USUAL_FREEDOM = 2
_FEWEST_WINDOWS = 6


# Of a number that a float holds.
MOST_LOG = log(sys.float_info.max)


def qn(values: Sequence[float]) -> float:
    """Return the spread of values, on the scale of a standard deviation; half of them may be outliers.

    Qn of Rousseeuw and Croux, "Alternatives to the Median Absolute Deviation", JASA 88 (1993): the lower quartile
    of all distances between two values. Where nothing is wrong it takes 82 % of what a standard deviation makes of
    the values (the median absolute deviation: 37 %), and one bad night does not blind it for a month.
    """
    count = len(values)
    half = count // 2 + 1
    distances = sorted(abs(one - other) for index, one in enumerate(values) for other in values[:index])
    of_few = _QN_OF_FEW.get(count) or count / (count + (1.4 if count % 2 else 3.8))
    return _QN_OF_NORMAL * of_few * distances[half * (half - 1) // 2 - 1]


def usual_spread(windows: Sequence[Sequence[float]]) -> float | None:
    """Return the median spread of the times of one machine; None for fewer than `_FEWEST_WINDOWS`."""
    if len(windows) < _FEWEST_WINDOWS:
        return None
    return median(qn([log(value) for value in values]) for values in windows)


def expected(values: Sequence[float], figures: int, usual: float | None = None) -> tuple[float, float, float]:
    """Return the next value expected, and the lowest and highest that chance explains, from the values before it.

    A prediction interval for one value, on a logarithmic scale, since noise multiplies times: the median, give or
    take Student's t times `qn` (and what the median itself may be off). `figures` are looked at in one run: of so
    many without a change, all stay inside in all but `FALSE_ALARMS` of the runs, on either side (Bonferroni).

    Few values tell little of their spread, and others on the same machine tell some: the `usual` spread counts as
    `_USUAL_FREEDOM` values more, as in Smyth, "Linear Models and Empirical Bayes Methods", Statistical Applications in
    Genetics and Molecular Biology 3 (2004).
    """
    count, logs = len(values), [log(value) for value in values]
    spread, freedom = qn(logs), int(_FREEDOM * (count - 1))
    if usual is not None:
        whole = freedom + _USUAL_FREEDOM
        spread, freedom = sqrt((freedom * spread**2 + _USUAL_FREEDOM * usual**2) / whole), whole
    within = t_around(1 - 2 * FALSE_ALARMS / figures, freedom)
    off = within * spread * sqrt(1 + pi / 2 / count)
    middle = median(logs)
    return exp(middle), exp(middle - off), exp(min(middle + off, MOST_LOG))
