"""Time against peak memory: which strategies no other one beats in both."""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import altair as alt

from bench.report.page.charts.figure import INK, SIDES, Figure, filled, looks, of, ratio_axis, specification
from bench.report.rows import Row

# field of the record, and what people call it
PEAKS = {"device_peak_ratio": "peak on the device", "host_peak_ratio": "private peak on the host"}


# Nearer to each other, as fractions of the axes, names would be written over each other; and what is later than this is
# named to its left.
NEAR_RATIO, NEAR_SECONDS, LATE = 0.1, 0.25, 0.68


class Point(NamedTuple):
    """A strategy in two figures: smaller is better in both."""

    seconds: float
    ratio: float
    strategy: str


def frontier(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats in both figures, the fastest first; of equals all."""

    def beaten(one: Point) -> bool:
        return any(
            other[:2] != one[:2] and other.seconds <= one.seconds and other.ratio <= one.ratio for other in points
        )

    return sorted(one for one in points if not beaten(one))


def frontier_figures(table: Sequence[Row], size: str) -> list[Figure]:
    """A chart for each memory that was measured beside the times of one size."""
    found = []
    for field, name in PEAKS.items():
        points = [
            Point(row.record["first_logits_seconds"], row.record[field], row.strategy)
            for row in table
            if row.size == size and not row.problems and None not in _figures(row, field)
        ]
        if points:
            found.append(_figure(points, name, size))
    return found


def _figures(row: Row, field: str) -> tuple[Any, Any]:
    return row.record.get(field), row.record.get("first_logits_seconds")


def _figure(points: Sequence[Point], name: str, size: str) -> Figure:
    best = frontier(points)
    title = f"{size}: time and {name}"
    text = f"Seconds until first logits, and {name} as multiples of the model. On the frontier: " + ", ".join(
        f"{one.strategy} ({one.seconds:.2f} s, {one.ratio:.2f}x)" for one in best
    )
    table = [["strategy", "first logits", name, "on the frontier"]]
    table += [[p.strategy, f"{p.seconds:.3f} s", f"{p.ratio:.3f}x", "yes" if p in best else "no"] for p in points]
    spec = filled(
        frontier_specification(name),
        text,
        points=[_value(p, points) for p in points],
        best=[p._asdict() for p in best],
        ends=[{"seconds": 0, "ratio": 0}, _ends(points)],
    )
    return Figure(title, text, spec, table)


@cache
def frontier_specification(name: str) -> dict[str, Any]:
    x = alt.X("seconds:Q", scale=alt.Scale(nice=False)).title("seconds until first logits")
    y = alt.Y("ratio:Q", scale=alt.Scale(nice=False)).axis(ratio_axis(f"{name}, of the model"))
    hover = ["strategy:N", alt.Tooltip("seconds:Q", format=".3f"), alt.Tooltip("ratio:Q", format=".3f")]
    shown = of("points").encode(x=x, y=y)
    layers = [
        of("ends").mark_point(opacity=0, size=0).encode(x=x, y=y),
        of("best")
        .mark_line(interpolate="step-after", strokeDash=[4, 3], strokeWidth=1.5, color=INK, opacity=0.6)
        .encode(x=x, y=y),
        shown.mark_point(size=90, filled=True, opacity=1).encode(**looks("strategy", legend=None), tooltip=hover),
    ]
    for up, dy in ((True, -9), (False, 10)):
        for align, dx in SIDES:
            beside = shown.transform_filter((alt.datum.up == up) & (alt.datum.align == align))
            layers.append(beside.mark_text(align=align, dx=7 * dx, dy=dy).encode(text="strategy:N"))
    return specification(alt.layer(*layers), 240)


def _ends(points: Sequence[Point]) -> dict[str, float]:
    """Where the axes end: names want room."""
    return {"seconds": 1.12 * max(p.seconds for p in points), "ratio": 1.2 * max(p.ratio for p in points) + 0.05}


def _value(point: Point, points: Sequence[Point]) -> dict[str, Any]:
    """A point, and on which side of it there is most room for its name."""
    ends = _ends(points)
    near = [
        other
        for other in points
        if abs(other.ratio - point.ratio) < NEAR_RATIO * ends["ratio"]
        and abs(other.seconds - point.seconds) < NEAR_SECONDS * ends["seconds"]
    ]
    # Of two that would be written over each other, the one that is higher is written above.
    up = sorted(near, key=lambda one: (-one.ratio, one.seconds)).index(point) % 2 == 0
    return {**point._asdict(), "up": up, "align": "right" if point.seconds > LATE * ends["seconds"] else "left"}
