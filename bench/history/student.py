"""Student's t for few degrees of freedom, where expansions are of no use."""

from functools import cache
from math import atan2, cos, pi, sin, sqrt, tan


def share_within(t: float, freedom: int) -> float:
    """Return the part of Student's distribution between -t and t.

    The finite series of Abramowitz and Stegun, 26.7.3 for odd and 26.7.4 for even degrees of freedom: exact.
    """
    return _share_within_angle(atan2(t, sqrt(freedom)), freedom)


@cache
def t_around(share: float, freedom: int) -> float:
    """Return the t for which this part lies between -t and t: `share_within` inverted, by bisection."""
    lowest, highest = 0.0, pi / 2
    for _ in range(60):
        middle = (lowest + highest) / 2
        if _share_within_angle(middle, freedom) < share:
            lowest = middle
        else:
            highest = middle
    return sqrt(freedom) * tan(lowest)


def _share_within_angle(angle: float, freedom: int) -> float:
    odd = freedom % 2
    term = cos(angle) if odd else 1.0
    total = 0.0 if freedom == 1 else term
    for power in range(2 + odd, freedom - 1, 2):
        term *= (power - 1) / power * cos(angle) ** 2
        total += term
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total
