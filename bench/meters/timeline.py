"""Memory of a load over time, in so few points that every record can have them.

Points are thinned as in M4 (Jugel et al., "M4: A Visualization-Oriented Time Series Data Aggregation", VLDB 2014): of
every stretch of time the first, the last, the lowest and the highest point stay, so a drawing of it looks the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, groupby
from typing import Any

# Seconds on the monotonic clock, and the bytes held from then on.
Point = tuple[float, int]
# By the field of `Timeline`; what is not counted has none.
Points = Mapping[str, Sequence[Point]]

# Series that end when every weight was read once; the others end when the load returned.
UNTIL_READ = ("host_private_bytes", "host_file_bytes")

# In the order in which a load gets there.
MOMENTS = ("build", "load", "copy", "first_logits")

MOST_POINTS = 160
# Digits of a second: 0.1 ms.
DIGITS = 4
# Points that stay of a stretch of time.
CORNERS = 4


@dataclass(frozen=True)
class Series:
    """Bytes above the level before the load, each held from its second on; seconds count from the start of the load."""

    seconds: tuple[float, ...]
    bytes: tuple[int, ...]


@dataclass(frozen=True)
class Timeline:
    """Times of the steps of a load, and the bytes that it held meanwhile; None where that was not, or not surely, seen.

    `moments` are seconds since the load began: `build` is when the first model was built, `load` when the last
    `torch.load` returned, `copy` when the load itself did, and `first_logits` when the model had been used. What did
    not happen is not there. The maximum of a series is the record's peak of that name, to the byte.
    """

    moments: Mapping[str, float]
    device_requested_bytes: Series | None = None
    host_private_bytes: Series | None = None
    host_file_bytes: Series | None = None
    host_pinned_bytes: Series | None = None

    def as_record(self) -> dict[str, Any]:
        """Return the value of the record's field `timeline`."""
        return asdict(self)


def timeline(
    began: float, moments: Mapping[str, float], read: float, points: Points, peaks: Mapping[str, int | None]
) -> Timeline:
    """Return the timeline of a load. Seconds are on the monotonic clock; all weights had been read once at `read`."""
    known = {name: peak for name, peak in peaks.items() if peak is not None and name in points}
    return Timeline(
        {name: round(moments[name] - began, DIGITS) for name in MOMENTS if name in moments},
        **{
            name: series(points[name], began, read if name in UNTIL_READ else moments["copy"], peak)
            for name, peak in known.items()
        },
    )


def series(points: Sequence[Point], began: float, end: float, peak_bytes: int) -> Series | None:
    """Return the series from 0 bytes at the beginning to the bytes at the end; None if points are missing.

    Then its peak is not `peak_bytes`. Points of several threads, or of a converted clock, may be a little out of order:
    their order counts, not the clock.
    """
    counts = [0, *(max(0, count) for _, count in points)]
    if max(counts) != peak_bytes:
        return None
    since = accumulate((max(0.0, at - began) for at in (began, *(at for at, _ in points), end)), max)
    seconds = [round(at, DIGITS) for at in since]
    kept = thinned(changes([*zip(seconds, [*counts, counts[-1]], strict=True)]))
    return Series(tuple(at for at, _ in kept), tuple(count for _, count in kept))


def raised(points: Sequence[Point], peak_bytes: int) -> list[Point]:
    """Return the points with the first of the highest raised to the peak.

    Samples miss peaks that are shorter than the time between two of them. The kernel's high-water mark tells their
    height, but not their time: that of the highest sample is taken.
    """
    counts = [count for _, count in points]
    highest = counts.index(max(counts))
    return [(at, peak_bytes if index == highest else count) for index, (at, count) in enumerate(points)]


def changes(points: Sequence[Point]) -> list[Point]:
    """Return the points whose bytes differ from those before, with the first and the last."""
    last = len(points) - 1
    return [point for index, point in enumerate(points) if index in {0, last} or point[1] != points[index - 1][1]]


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """Return so many of the points at most; the first, the last and the highest are among them."""
    if len(points) <= most:
        return list(points)
    start, stretches = points[0][0], most // CORNERS
    seconds = (points[-1][0] - start) / stretches or 1.0

    def stretch(index: int) -> int:
        return min(int((points[index][0] - start) / seconds), stretches - 1)

    corners = (_corners(points, list(indices)) for _, indices in groupby(range(len(points)), stretch))
    return [points[index] for stretch_corners in corners for index in stretch_corners]


def _corners(points: Sequence[Point], indices: list[int]) -> list[int]:
    def count(index: int) -> int:
        return points[index][1]

    return sorted({indices[0], min(indices, key=count), max(indices, key=count), indices[-1]})
