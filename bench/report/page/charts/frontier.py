"""Time against peak memory: which strategies no other one beats in both."""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import altair as alt

from bench.record.field import DEVICE
from bench.record.record import PEAKS
from bench.report.budget_marks import TOO_BIG
from bench.report.page.charts.figure import COLOURS, INK, NARROW, TICKS, Chart, filled, of, ratio_axis, specification
from bench.report.page.charts.labels import LEADER, SPACE, Side, placed
from bench.report.rows import Row, peak_ratio

# Of a chart with few points, and what each of more points adds, in pixels.
HEIGHT, FEW, EACH = 240, 8, 12

# What is said of a point: its shape and its colour.
BEST, OTHER, FAILED = "on the frontier", "not on the frontier", "failed"
CROSS = "M-0.9,-0.9L0.9,0.9M-0.9,0.9L0.9,-0.9"
KINDS = {
    BEST: ("circle", COLOURS[2]),
    OTHER: ("circle", COLOURS[0]),
    TOO_BIG: ("square", COLOURS[1]),
    FAILED: (CROSS, COLOURS[5]),
}


# How the text of a name is aligned, and the direction in which it is moved from its point.
SIDES: tuple[tuple[Side, int], ...] = (("left", 1), ("right", -1))


class Point(NamedTuple):
    """A strategy in two figures: smaller is better in both. `kind` is `TOO_BIG` or `FAILED` if it cannot be used."""

    seconds: float
    ratio: float
    strategy: str
    kind: str = OTHER


def frontier(points: Sequence[Point]) -> list[Point]:
    """Return the usable points that no other beats in both figures, the fastest first; of equals all."""
    usable = [one for one in points if one.kind == OTHER]

    def beaten(one: Point) -> bool:
        return any(
            other[:2] != one[:2] and other.seconds <= one.seconds and other.ratio <= one.ratio for other in usable
        )

    return sorted(one for one in usable if not beaten(one))


def frontier_figures(table: Sequence[Row], size: str) -> list[Chart]:
    """Make a chart for each memory that was measured beside times of one size, and for each division of the model."""
    found = []
    some = [row for row in table if row.size == size and not row.was_skipped]
    for one in dict.fromkeys(row.key.division for row in some):
        (ranks, parallelism), own = one, [row for row in some if row.key.division == one]
        for peak in PEAKS.values():
            if not (field := peak.ratio):
                continue
            name = "peak on the device" if peak.place == DEVICE else f"{peak.kind} peak on the host"
            points = [
                Point(*figures, row.key.strategy, _kind(row))
                for row in own
                if None not in (figures := _figures(row, field))
            ]
            title = f"{size} {parallelism} x{ranks}" if parallelism else size
            scale = "S/N" if parallelism and peak.place == DEVICE else "the model"
            if any(point.kind == OTHER for point in points):
                found.append(_figure(points, name, title, scale))
    return found


def _kind(row: Row) -> str:
    return FAILED if row.has_failed else OTHER if row.fits else TOO_BIG


def _figures(row: Row, field: str) -> tuple[Any, Any]:
    return row.record.first_logits_seconds, peak_ratio(row.record, field)


def _figure(points: Sequence[Point], name: str, whose: str, scale: str) -> Chart:
    best = frontier(points)
    known = [point._replace(kind=BEST) if point in best else point for point in points]
    title = f"{whose}: time and {name}"
    text = f"Seconds until first output, and {name} as multiples of {scale}. On the frontier: " + ", ".join(
        f"{one.strategy} ({one.seconds:.2f} s, {one.ratio:.2f}x)" for one in best
    )
    table = [["strategy", "first output", name, ""]]
    table += [[p.strategy, f"{p.seconds:.3f} s", f"{p.ratio:.3f}x", p.kind] for p in known]
    ends, height = _ends(points), HEIGHT + EACH * max(0, len(points) - FEW)
    names = list(_names(known, ends, height))
    spec = filled(
        _specification(f"{name}, of {scale}"),
        text,
        points=[p._asdict() for p in known],
        **{f"named_{side}": [name for name in names if name["side"] == side] for side, _ in SIDES},
        leaders=[name for name in names if abs(name["rise"]) > LEADER],
        stairs=_stairs(best, ends),
        ends=[{"seconds": 0, "ratio": 0}, ends],
    )
    return Chart(title, text, spec | {"height": height}, table)


@cache
def _specification(title: str) -> dict[str, Any]:
    x = alt.X("seconds:Q", scale=alt.Scale(nice=False)).axis(
        alt.Axis(title="seconds until first output", tickCount=TICKS)
    )
    y = alt.Y("ratio:Q", scale=alt.Scale(nice=False)).axis(ratio_axis(title))
    at_name = alt.Y("at:Q", scale=alt.Scale(nice=False)).axis(ratio_axis(title))
    hover = ["strategy:N", alt.Tooltip("seconds:Q", format=".3f"), alt.Tooltip("ratio:Q", format=".3f"), "kind:N"]
    shape, colour = (alt.Scale(domain=list(KINDS), range=[kind[place] for kind in KINDS.values()]) for place in (0, 1))
    kind = {
        "color": alt.Color("kind:N", scale=colour, legend=None),
        "fill": alt.Fill("kind:N", scale=colour, legend=None),
        "shape": alt.Shape("kind:N", scale=shape, legend=None),
    }
    layers = [
        of("ends").mark_point(opacity=0, size=0).encode(x=x, y=y),
        of("stairs")
        .mark_line(interpolate="step-after", strokeDash=[4, 3], strokeWidth=1.5, color=INK, opacity=0.6)
        .encode(x=x, y=y),
        of("leaders").mark_rule(opacity=0.4).encode(x=x, y=y, y2="at:Q"),
        of("points").mark_point(size=90, opacity=1).encode(x=x, y=y, **kind, tooltip=hover),
    ]
    for side, way in SIDES:
        names = of(f"named_{side}").mark_text(align=side, dx=way * SPACE)
        layers.append(names.encode(x=x, y=at_name, text="name:N"))
    return specification(alt.layer(*layers), HEIGHT)


def _stairs(best: Sequence[Point], ends: dict[str, float]) -> list[dict[str, float]]:
    """The frontier as a line, on to where the axes end: what is above it is beaten."""
    corners = [{"seconds": one.seconds, "ratio": one.ratio} for one in best]
    return [{**corners[0], "ratio": ends["ratio"]}, *corners, {**corners[-1], "seconds": ends["seconds"]}]


def _ends(points: Sequence[Point]) -> dict[str, float]:
    """Return the ends of the axes, with room for names."""
    return {"seconds": 1.12 * max(p.seconds for p in points), "ratio": 1.2 * max(p.ratio for p in points) + 0.05}


def _names(points: Sequence[Point], ends: dict[str, float], height: float) -> Iterator[dict[str, Any]]:
    """Yield the name of each point, and the ratio `at` which it stands on the axis."""
    names = [p.strategy if p.kind in (BEST, OTHER) else f"{p.strategy} ({p.kind})" for p in points]
    places = [(NARROW * p.seconds / ends["seconds"], height * (1 - p.ratio / ends["ratio"])) for p in points]
    for point, name, label in zip(points, names, placed(places, names, height), strict=True):
        at = point.ratio + label.rise * ends["ratio"] / height
        yield {"name": name, "seconds": point.seconds, "ratio": point.ratio, "at": at, **label._asdict()}
