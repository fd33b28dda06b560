"""Time against peak memory: which strategies no other one beats in both."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

import altair as alt

from bench.record.field import DEVICE
from bench.record.record import PEAKS
from bench.report.page.charts.figure import INK, LETTER, NARROW, Chart, filled, looks, of, ratio_axis, specification
from bench.report.rows import Row, peak_ratio

# Where the name of a point may stand, the best first: how its text is aligned, and how far from the point, in pixels.
PLACES: dict[str, tuple[Literal["left", "right"], int, int]] = {
    "above_right": ("left", 4, -13),
    "below_right": ("left", 4, 13),
    "above_left": ("right", -4, -13),
    "below_left": ("right", -4, 13),
    "far_above_right": ("left", 4, -26),
    "far_below_right": ("left", 4, 26),
    "far_above_left": ("right", -4, -26),
    "far_below_left": ("right", -4, 26),
    "farther_above_right": ("left", 4, -39),
    "farther_above_left": ("right", -4, -39),
}
# Of the chart, of a line of its text, and of a point, in pixels.
HEIGHT, LINE, RADIUS = 240, 13, 6

# Left, top, right and bottom, in pixels.
Box = tuple[float, float, float, float]


class Point(NamedTuple):
    """A strategy in two figures: smaller is better in both."""

    seconds: float
    ratio: float
    strategy: str


def frontier(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats in both figures, the fastest first; of equals all."""

    def beaten(one: Point) -> bool:
        return any(
            other[:2] != one[:2] and other.seconds <= one.seconds and other.ratio <= one.ratio for other in points
        )

    return sorted(one for one in points if not beaten(one))


def frontier_figures(table: Sequence[Row], size: str) -> list[Chart]:
    """Make a chart for each memory that was measured beside times of one size, and for each division of the model."""
    found = []
    some = [row for row in table if row.size == size and not row.problems]
    for one in dict.fromkeys(row.key.division for row in some):
        (ranks, parallelism), own = one, [row for row in some if row.key.division == one]
        for peak in PEAKS.values():
            if not (field := peak.ratio):
                continue
            name = "peak on the device" if peak.place == DEVICE else f"{peak.kind} peak on the host"
            points = [Point(*figures, row.key.strategy) for row in own if None not in (figures := _figures(row, field))]
            title = f"{size} {parallelism} x{ranks}" if parallelism else size
            scale = "S/N" if parallelism and peak.place == DEVICE else "the model"
            if points:
                found.append(_figure(points, name, title, scale))
    return found


def _figures(row: Row, field: str) -> tuple[Any, Any]:
    return row.record.first_logits_seconds, peak_ratio(row.record, field)


def _figure(points: Sequence[Point], name: str, whose: str, scale: str) -> Chart:
    best = frontier(points)
    title = f"{whose}: time and {name}"
    text = f"Seconds until first logits, and {name} as multiples of {scale}. On the frontier: " + ", ".join(
        f"{one.strategy} ({one.seconds:.2f} s, {one.ratio:.2f}x)" for one in best
    )
    table = [["strategy", "first logits", name, "on the frontier"]]
    table += [[p.strategy, f"{p.seconds:.3f} s", f"{p.ratio:.3f}x", "yes" if p in best else "no"] for p in points]
    spec = filled(
        _specification(f"{name}, of {scale}", tuple(point.strategy for point in points)),
        text,
        points=[p._asdict() for p in points],
        **_names(points),
        stairs=_stairs(best, ends := _ends(points)),
        ends=[{"seconds": 0, "ratio": 0}, ends],
    )
    return Chart(title, text, spec, table)


@cache
def _specification(title: str, strategies: tuple[str, ...]) -> dict[str, Any]:
    x = alt.X("seconds:Q", scale=alt.Scale(nice=False)).title("seconds until first logits")
    y = alt.Y("ratio:Q", scale=alt.Scale(nice=False)).axis(ratio_axis(title))
    hover = ["strategy:N", alt.Tooltip("seconds:Q", format=".3f"), alt.Tooltip("ratio:Q", format=".3f")]
    layers = [
        of("ends").mark_point(opacity=0, size=0).encode(x=x, y=y),
        of("stairs")
        .mark_line(interpolate="step-after", strokeDash=[4, 3], strokeWidth=1.5, color=INK, opacity=0.6)
        .encode(x=x, y=y),
        of("points")
        .mark_point(size=90, filled=True, opacity=1)
        .encode(x=x, y=y, **looks("strategy", strategies, None), tooltip=hover),
    ]
    for place, (align, dx, dy) in PLACES.items():
        names = of(place).mark_text(align=align, dx=dx, dy=dy, limit=NARROW // 2)
        layers.append(names.encode(x=x, y=y, text="strategy:N"))
    return specification(alt.layer(*layers), HEIGHT)


def _stairs(best: Sequence[Point], ends: dict[str, float]) -> list[dict[str, float]]:
    """The frontier as a line, on to where the axes end: what is above it is beaten."""
    corners = [{"seconds": one.seconds, "ratio": one.ratio} for one in best]
    return [{**corners[0], "ratio": ends["ratio"]}, *corners, {**corners[-1], "seconds": ends["seconds"]}]


def _ends(points: Sequence[Point]) -> dict[str, float]:
    """Return the ends of the axes, with room for names."""
    return {"seconds": 1.12 * max(p.seconds for p in points), "ratio": 1.2 * max(p.ratio for p in points) + 0.05}


def _names(points: Sequence[Point]) -> dict[str, list[dict[str, Any]]]:
    """The points by where there is room for their names."""
    places: dict[str, list[dict[str, Any]]] = {place: [] for place in PLACES}
    ends = _ends(points)
    taken = [_box(point, ends) for point in points]
    for point in sorted(points):
        boxes = {place: _box(point, ends, place) for place in PLACES}
        costs = {place: (_outside(box), sum(_shared(box, one) for one in taken)) for place, box in boxes.items()}
        place = min(costs, key=costs.__getitem__)
        taken.append(boxes[place])
        places[place].append(point._asdict())
    return places


def _box(point: Point, ends: dict[str, float], place: str | None = None) -> Box:
    """Return the box of a point, or of its name in a place."""
    x, y = NARROW * point.seconds / ends["seconds"], HEIGHT * (1 - point.ratio / ends["ratio"])
    if place is None:
        return x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS
    align, dx, dy = PLACES[place]
    length = min(LETTER * len(point.strategy), NARROW // 2)
    left = x + dx - (length if align == "right" else 0)
    return left, y + dy - LINE / 2, left + length, y + dy + LINE / 2


def _outside(box: Box) -> float:
    """Return the pixels by which a box is beyond the chart."""
    left, top, right, bottom = box
    return max(0.0, -left) + max(0.0, -top) + max(0.0, right - NARROW) + max(0.0, bottom - HEIGHT)


def _shared(one: Box, other: Box) -> float:
    """Return the area that two boxes share, in square pixels."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)
