"""Allocations that were alive at the peaks, by line of the recipe: a bar a strategy."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import altair as alt

from bench.record.field import Peak
from bench.record.record import PEAKS
from bench.report.page.charts.figure import LETTER, NARROW, Chart, filled, of, ratio_axis, specification
from bench.report.rows import CaseResult, scale_bytes

# White text on them has a contrast of 4.5 to 1 or more.
BARS = ("#1f6fae", "#a9500a", "#17754f", "#8a45a3", "#836000", "#b8323f", "#4b6a86")
BAR_HEIGHT = 26


def alive_figures(results: Sequence[CaseResult], size: str) -> list[Chart]:
    """Make a chart for each peak of one size whose allocations are known."""
    return [chart for field, peak in PEAKS.items() if (chart := _chart(results, size, field, peak))]


def _chart(results: Sequence[CaseResult], size: str, field: str, peak: Peak) -> Chart | None:
    name = f"at the {peak.kind} peak on the {peak.place}"
    bars = [value for result in results for value in _bar(result, field)]
    if not bars:
        return None
    longest = max(value["end"] for value in bars) or 1
    for value in bars:
        room = NARROW * (value["end"] - value["start"]) / longest
        value["label"] = value["line"] if LETTER * len(value["line"]) < room else str(value["number"])
    table = [["strategy", "part", "bytes", "tensors", "line", "code"]]
    table += [
        [v["strategy"], str(v["number"]), f"{v['bytes']:,}", f"{v['tensors']:,}", v["line"], v["code"]] for v in bars
    ]
    of_shares = any(scale_bytes(result.record, field) != result.record.state_bytes for result in results)
    scale = "S/N" if of_shares else "the model"
    text = f"What was alive {name}, by the line of code that asked for it, as multiples of {scale}"
    height = BAR_HEIGHT * len({v["strategy"] for v in bars})
    spec = filled(_specification(f"of {scale}"), text, bars=bars) | {"height": height}
    return Chart(f"{size}: {name}", text, spec, table)


@cache
def _specification(title: str) -> dict[str, Any]:
    y = alt.Y("strategy:N", sort=None, axis=alt.Axis(title=None, labelLimit=200, ticks=False))
    base = of("bars").encode(y=y)
    colour = alt.Color("rank:N", legend=None, scale=alt.Scale(domain=list(range(len(BARS))), range=list(BARS)))
    hover = ["strategy:N", "line:N", "code:N", alt.Tooltip("bytes:Q", format=","), "tensors:Q"]
    bars = base.mark_bar(stroke="white", strokeWidth=0.8).encode(
        x=alt.X("start:Q", axis=ratio_axis(title)), x2="end:Q", color=colour, tooltip=hover
    )
    names = base.mark_text(fontSize=10).encode(x="middle:Q", text="label:N", fill=alt.value("white"))
    return specification(alt.layer(bars, names), BAR_HEIGHT)


def _bar(result: CaseResult, field: str) -> list[dict[str, Any]]:
    """The parts of a bar, most bytes first."""
    alive: Sequence[Mapping[str, Any]] = (result.record.alive_at_peak or {}).get(field) or ()
    scale, end, parts = scale_bytes(result.record, field), 0.0, []
    for rank, held in enumerate(alive):
        start, end = end, end + held["bytes"] / scale
        part = {"start": start, "end": end, "middle": (start + end) / 2, "number": rank + 1, "rank": rank % len(BARS)}
        parts.append({**held, "strategy": result.key.name, **part})
    return parts
