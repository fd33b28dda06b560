"""What was alive at the peak of each load: a bar for each line of code that had asked for memory, with its text."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import altair as alt

from bench.record.record import PEAKS
from bench.report.page.charts.figure import COLOURS, INK, Chart, filled, of, ratio_axis, specification
from bench.report.rows import CaseResult, scale_bytes

# The peak that the bars divide: that of the device, or else that of the host.
PARTED = ("device_requested_peak_bytes", "host_private_peak_bytes")


class Mark(NamedTuple):
    """A peak of the allocator, as a mark on the bars: `path` is its SVG, within a square of 2 around its middle."""

    field: str
    name: str
    path: str
    colour: str


MARKS = (
    Mark("device_allocated_peak_bytes", "allocated", "M0,-1L0.8,0.8L-0.8,0.8Z", COLOURS[1]),
    Mark("device_reserved_peak_bytes", "reserved", "M-0.2,-1.4L0.2,-1.4L0.2,1.4L-0.2,1.4Z", COLOURS[3]),
)

# Lines of a load that are shown; the rest is one bar. A line with less of the model than this belongs to the rest.
MOST_LINES, LITTLE = 6, 0.01
# Of a name, of a line's text, of its bar, and of the space below both, in pixels.
NAME, TEXT, BAR, GAP = 18, 14, 9, 6


def alive_figures(results: Sequence[CaseResult], size: str) -> list[Chart]:
    """Make a chart for each division of one size whose allocations are known."""
    found = []
    for division in dict.fromkeys(result.key.division for result in results):
        alike = [result for result in results if result.key.division == division]
        field = next((one for one in PARTED if any(_alive(result, one) for result in alike)), None)
        if field:
            ranks, parallelism = division
            title = f"{size}, {parallelism} on {ranks:,} ranks" if parallelism else size
            found.append(_chart([result for result in alike if _alive(result, field)], title, field))
    return found


def _alive(result: CaseResult, field: str) -> Sequence[Mapping[str, Any]]:
    """Return what was alive at a peak, most bytes first."""
    return (result.record.alive_at_peak or {}).get(field) or ()


def _chart(results: Sequence[CaseResult], title: str, field: str) -> Chart:
    peak = PEAKS[field]
    names, bars, marks, top = [], [], [], GAP
    for result in results:
        names.append({"name": result.key.strategy, "y": top})
        parts = list(_parts(result, field, top + NAME))
        bars += parts
        marks += list(_marks(result, parts[-1]["middle"]))
        top = parts[-1]["bottom"] + GAP
    of_shares = any(scale_bytes(result.record, field) != result.record.state_bytes for result in results)
    scale = "S/N" if of_shares else "the model"
    text = (
        f"Memory that was alive at the {peak.kind} peak on the {peak.place}, by the line of code that asked for it, as "
        f"multiples of {scale}"
    )
    ends = [{"x": 0}, {"x": 1.03 * max(value["x"] for value in [*marks, *({"x": bar["end"]} for bar in bars)])}]
    spec = filled(_specification(f"multiples of {scale}"), text, ends=ends, names=names, bars=bars, marks=marks)
    return Chart(title, text, spec | {"height": top}, [*_table(results)])


@cache
def _specification(title: str) -> dict[str, Any]:
    x = alt.X("start:Q", axis=ratio_axis(title), scale=alt.Scale(nice=False))
    at_mark = alt.X("x:Q", axis=ratio_axis(title))
    width = alt.ExprRef(expr="width")
    row = {name: alt.Y(f"{name}:Q", scale=None, axis=None) for name in ("y", "top", "middle")}
    hover = ["strategy:N", "line:N", "code:N", alt.Tooltip("bytes:Q", format=","), "tensors:Q"]
    pixel = alt.value(0)
    shape = alt.Shape("name:N", legend=None, scale=alt.Scale(domain=_of_marks("name"), range=_of_marks("path")))
    colour = alt.Color("name:N", legend=None, scale=alt.Scale(domain=_of_marks("name"), range=_of_marks("colour")))
    layers = [
        of("ends").mark_point(opacity=0, size=0).encode(x=at_mark),
        of("names")
        .mark_text(align="left", baseline="top", fontWeight="bold", limit=width)
        .encode(x=pixel, y=row["y"], text="name:N"),
        of("bars").mark_text(align="left", baseline="top", limit=width).encode(x=pixel, y=row["y"], text="text:N"),
        of("bars")
        .mark_rect(color=COLOURS[0])
        .encode(x=x, x2="end:Q", y=row["top"], y2="bottom:Q", tooltip=hover, description="text:N"),
        of("marks")
        .mark_point(filled=True, opacity=1, size=60, stroke=INK, strokeWidth=0.5)
        .encode(x=at_mark, y=row["middle"], shape=shape, color=colour, tooltip=["strategy:N", "name:N", "shown:N"]),
    ]
    return specification(alt.layer(*layers), NAME)


def _of_marks(attribute: str) -> list[str]:
    return [getattr(mark, attribute) for mark in MARKS]


def _parts(result: CaseResult, field: str, top: int) -> Iterator[dict[str, Any]]:
    """Yield the bars of a load, each beginning where the one above it ends; `top` is that of the first, in pixels."""
    scale, end = scale_bytes(result.record, field), 0.0
    for held in _shown(_alive(result, field), LITTLE * scale):
        start, end = end, end + held["bytes"] / scale
        text = f"{held['bytes'] / scale:.2f}x  {held['line']}  {held['code']}".rstrip()
        place = {"y": top, "top": top + TEXT, "middle": top + TEXT + BAR / 2, "bottom": top + TEXT + BAR}
        yield {**held, "strategy": result.key.strategy, "text": text, "start": start, "end": end, **place}
        top += TEXT + BAR + GAP


def _shown(alive: Sequence[Mapping[str, Any]], least: float) -> Iterator[Mapping[str, Any]]:
    """Yield the lines with most bytes, and the others as one; those without a hundredth of the model not at all."""
    large = [held for held in alive if held["bytes"] >= least] or alive[:1]
    yield from large[:MOST_LINES]
    if rest := large[MOST_LINES:]:
        sums = {name: sum(held[name] for held in rest) for name in ("bytes", "tensors")}
        yield {**sums, "line": f"{len(rest)} other lines", "code": ""}


def _marks(result: CaseResult, middle: float) -> Iterator[dict[str, Any]]:
    for mark in MARKS:
        count = result.record.value(mark.field)
        if count is not None:
            x = count / scale_bytes(result.record, mark.field)
            words = f"{count:,} bytes, {x:.3f}x"
            yield {"strategy": result.key.strategy, "name": mark.name, "x": x, "shown": words, "middle": middle}


def _table(results: Sequence[CaseResult]) -> Iterator[list[str]]:
    """Yield every allocation at every peak."""
    yield ["strategy", "at the peak", "bytes", "tensors", "line", "code"]
    for result in results:
        for field, alive in (result.record.alive_at_peak or {}).items():
            name = f"{PEAKS[field].place} {PEAKS[field].kind}" if field in PEAKS else field
            for held in alive or ():
                counts = (f"{held['bytes']:,}", f"{held['tensors']:,}")
                yield [result.key.strategy, name, *counts, held["line"], held["code"]]
