"""Memory over the time of one load: small multiples, on equal axes for all strategies of a size."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import altair as alt

from bench.meters.timeline import MOMENTS
from bench.record.field import DEVICE, Peak
from bench.record.record import PEAKS, Record
from bench.report.page.charts.figure import COLOURS, TICKS, Chart, filled, of, ratio_axis, specification
from bench.report.rows import CaseResult
from model.byte_sizes import GIB

# How a line is drawn, and that in pixels drawn and left out in turn.
DASHES = {"solid": [1, 0], "dashed": [7, 2], "dotted": [2, 2], "dash-dotted": [7, 2, 2, 2]}


class TimelineSeries(NamedTuple):
    """A line: the field of its peak, which says where its points and its bound are, and how it is drawn."""

    field: str
    peak: Peak
    colour: str
    stroke: str

    @property
    def name(self) -> str:
        return "device" if self.peak.place == DEVICE else self.peak.kind

    @property
    def dash(self) -> list[int]:
        return DASHES[self.stroke]


SERIES = tuple(
    TimelineSeries(*peak, colour, stroke)
    for peak, colour, stroke in zip(
        ((name, peak) for name, peak in PEAKS.items() if peak.timeline), COLOURS, DASHES, strict=False
    )
)
# How text is aligned, and the direction in which it is moved from what it names.
SIDES: tuple[tuple[Literal["left", "right"], int], ...] = (("left", 1), ("right", -1))

# Of the points of a line that answer to a pointer.
MOST_HOVERED = 80

# A line of nothing is not drawn: a hundredth of the model is the width of a line.
LITTLE = 0.01

# Above the highest line, for the names of moments.
HEADROOM = 1.5
# Of the time axis: a name that begins later would end outside.
LATE = 0.6
# Of a chart, and of a line of its text, in pixels.
HEIGHT, LINE_HEIGHT = 170, 11


def timelines(results: Sequence[CaseResult]) -> list[Chart]:
    """Make a chart for each load of one size that has a timeline.

    What is planned of many ranks has none: it takes no time, and a rank little of the model.
    """
    having = [result for result in results if result.record.timeline and not _is_planned_by_many(result)]
    ends = {
        "seconds": max((_end(result.record) for result in having), default=0),
        "ratio": HEADROOM * max((ratio for result in having for ratio in _ratios(result.record)), default=0),
    }
    return [_figure(result, ends) for result in having]


def _is_planned_by_many(result: CaseResult) -> bool:
    return bool(result.record.planned and result.record.ranks)


def _figure(result: CaseResult, ends: dict[str, float]) -> Chart:
    """`ends` are those of the axes of all charts of this size."""
    record, name = result.record, result.key.title
    drawn = [one for one in SERIES if _is_drawn(record, one)]
    table = [["", "peak", "at", "bound"], *(_row(record, one) for one in drawn), *_moment_rows(record)]
    text = f"Memory of {name} over the time of its load, as multiples of the model. " + "; ".join(
        f"{_named(one)} peaks at {_row(record, one)[1]}" for one in drawn
    )
    lines = [[_value(record, one, *point) for point in _points(record, one)] for one in drawn]
    named = _moments(record, ends["seconds"])
    spec = filled(
        _specification(),
        text,
        ends=[{"seconds": 0, "ratio": 0}, ends],
        points=[value for line in lines for value in line],
        hovered=[value for line in lines for value in line[:: -(-len(line) // MOST_HOVERED)]],
        peaks=[_peak(result, one) for one in drawn],
        bounds=_bounds(record, drawn, ends["ratio"]),
        moments=named,
        **{f"named_{side}": [value for value in named if value["align"] == side] for side, _ in SIDES},
    )
    return Chart(name + (": FAILED" if result.problem else ""), text, spec, table, _csv(record))


@cache
def _specification() -> dict[str, Any]:
    x, y = alt.X("seconds:Q", scale=alt.Scale(nice=False)), alt.Y("ratio:Q", scale=alt.Scale(nice=False))
    x, y = x.axis(alt.Axis(title="seconds", tickCount=TICKS)), y.axis(ratio_axis(None))
    names = [one.name for one in SERIES]
    colours = alt.Scale(domain=names, range=[one.colour for one in SERIES])
    dashes = alt.Scale(domain=names, range=[one.dash for one in SERIES])
    colour = alt.Color("memory:N", scale=colours, legend=None)
    hover = ["memory:N", "seconds:Q", alt.Tooltip("bytes:Q", format=","), alt.Tooltip("ratio:Q", format=".2f")]
    line = of("points").encode(x=x, y=y, color=colour, strokeDash=alt.StrokeDash("memory:N", scale=dashes, legend=None))
    layers = [
        of("ends").mark_point(opacity=0, size=0).encode(x=x, y=y),
        # Points where nothing changed are not recorded.
        line.mark_line(strokeWidth=2, interpolate="step-after"),
        of("hovered").mark_point(opacity=0, size=60, filled=True).encode(x=x, y=y, color=colour, tooltip=hover),
        of("peaks")
        .mark_point(size=28, filled=True, opacity=1)
        .encode(x=x, y=y, color=colour, tooltip=hover, description="text:N"),
        of("bounds").mark_rule(strokeWidth=1, opacity=0.7).encode(y=y, color=colour),
        of("bounds")
        .mark_text(align="right", baseline="bottom", dx=-2, dy=-1, fontSize=10)
        .encode(x=alt.value("width"), y=y, text="text:N"),
        of("moments").mark_rule(opacity=0.45, strokeDash=[1, 3]).encode(x=x),
    ]
    for side, dx in SIDES:
        mark = of(f"named_{side}").mark_text(align=side, baseline="top", dx=3 * dx)
        layers.append(mark.encode(x=x, y=alt.Y("row:Q", scale=None), text="text:N"))
    return specification(alt.layer(*layers), HEIGHT)


def _value(record: Record, one: TimelineSeries, seconds: float, count: int) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "ratio": round(count / record.state_bytes, 5),
        "bytes": count,
        "memory": one.name,
    }


def _peak(result: CaseResult, one: TimelineSeries) -> dict[str, Any]:
    seconds, most = _highest(result.record, one)
    text = f"{result.key.title}: {_named(one)} peaks at {most:,} bytes after {seconds:.4f} s"
    return _value(result.record, one, seconds, most) | {"text": text}


def _bounds(record: Record, drawn: Sequence[TimelineSeries], end: float) -> list[dict[str, Any]]:
    """Return the bounds of the lines that are not zero; lines of the same bound share one.

    `end` is that of the axis: where there is no room for a text below another, both stand at the higher line.
    """
    by_ratio: dict[float, list[str]] = defaultdict(list)
    for one in drawn:
        if bound := _bound(record, one):
            by_ratio[bound].append(one.name)
    texts = {ratio: f"{' and '.join(names)} bound {ratio:.2f}x" for ratio, names in by_ratio.items()}
    for ratio, higher in pairwise(sorted(texts)):
        if (higher - ratio) * HEIGHT < LINE_HEIGHT * end:
            texts[higher], texts[ratio] = f"{texts[higher]}, {texts[ratio]}", ""
    return [{"ratio": ratio, "memory": names[0], "text": texts[ratio]} for ratio, names in by_ratio.items()]


def _bound(record: Record, one: TimelineSeries) -> float | None:
    bound: float | None = record.value(one.peak.bound) if one.peak.bound else None
    return bound


def _moments(record: Record, lasting: float) -> list[dict[str, Any]]:
    """Moments with their names one below the other, on the side where there is room."""
    return [
        {
            "seconds": at,
            "text": name.replace("_", " "),
            "align": "right" if at > LATE * lasting else "left",
            "row": LINE_HEIGHT * number,
        }
        for number, (name, at) in enumerate(_named_moments(record))
    ]


def _named_moments(record: Record) -> list[tuple[str, float]]:
    moments = record.timeline["moments"] if record.timeline else {}
    return [(name, moments[name]) for name in MOMENTS if name in moments]


def _points(record: Record, one: TimelineSeries) -> list[tuple[float, int]]:
    series = (record.timeline or {}).get(one.peak.timeline or "")
    return list(zip(series["seconds"], series["bytes"], strict=True)) if series else []


def _highest(record: Record, one: TimelineSeries) -> tuple[float, int]:
    return max(_points(record, one), key=lambda point: point[1])


def _is_drawn(record: Record, one: TimelineSeries) -> bool:
    counts = [count for _, count in _points(record, one)]
    return bool(counts) and max(counts) > LITTLE * record.state_bytes


def _ratios(record: Record) -> Iterator[float]:
    for one in SERIES:
        yield from (count / record.state_bytes for _, count in _points(record, one))
        if _is_drawn(record, one) and (bound := _bound(record, one)):
            yield bound


def _end(record: Record) -> float:
    ends = [points[-1][0] for one in SERIES if (points := _points(record, one))]
    return max([*ends, *(at for _, at in _named_moments(record))], default=0.0)


def _named(one: TimelineSeries) -> str:
    return "device memory" if one.peak.place == DEVICE else f"{one.name} host memory"


def _row(record: Record, one: TimelineSeries) -> list[str]:
    seconds, most = _highest(record, one)
    bound = _bound(record, one)
    peak = f"{most / GIB:.3f} GiB, {most / record.state_bytes:.2f}x"
    return [_named(one), peak, f"{seconds:.3f} s", "-" if bound is None else f"{bound:.2f}x"]


def _moment_rows(record: Record) -> Iterator[list[str]]:
    for name, at in _named_moments(record):
        yield [name.replace("_", " "), "", f"{at:.3f} s", ""]


def _csv(record: Record) -> str:
    """Every point, and every moment."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["what", "seconds", "bytes"])
    writer.writerows([one.peak.timeline, seconds, count] for one in SERIES for seconds, count in _points(record, one))
    writer.writerows([name, at, ""] for name, at in _named_moments(record))
    return file.getvalue()
