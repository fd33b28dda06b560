"""Figures over all recorded runs, and where they came to another level."""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import altair as alt

from bench.history.change_points import ChangePoint
from bench.history.fingerprint import gpus
from bench.history.runs import Key, Run
from bench.record.field import Field, format_figure
from bench.record.record import FIELDS
from bench.report.page.charts.figure import INK, NARROW, Chart, filled, looks, of, specification

# What is said of a run.
ABOUT = ("run", "date", "commit", "torch", "python", "machine", "outcome")

# Older ones are found by `--history`; a page is to open at once.
MOST_RUNS = 300
# Of points, in square pixels: those of more runs would be a band.
LARGE, SMALL, FEW_RUNS = 45, 8, 60
# Letters of a name of which two have room beside each other on a phone.
SHORT_NAME = 22


def history_figures(runs: Sequence[Run], points: Sequence[ChangePoint], latest: Run, size: str) -> list[Chart]:
    """A chart a figure, a line for each benchmark of one size that the latest run has.

    A line ends where the next run was on another machine.
    """
    keys = [key for key, record in latest.records.items() if record.size == size and record.strategy]
    charted = [field for field in FIELDS.values() if field.charted]
    return [chart for field in charted if (chart := _chart(runs, points, keys, size, field))]


def _chart(
    runs: Sequence[Run], points: Sequence[ChangePoint], keys: Sequence[Key], size: str, field: Field
) -> Chart | None:
    figure = field.name
    unit, divisor = ("seconds", 1) if field.is_seconds else ("GiB", 2**30)
    values = [value for key in keys for value in _values(runs, key, figure, divisor)]
    having = {value["run"] for value in values}
    numbers = [run.name for run in runs if run.name in having]
    if len(numbers) < 2:  # noqa: PLR2004 - one point is no line
        return None
    moved = [value for point in points for value in _moved(point, keys, figure, divisor) if value["run"] in numbers]
    text = f"{field.title} in {len(numbers)} recorded runs, a line a benchmark; {len(moved)} change points"
    table = [["benchmark", *ABOUT, field.title]]
    table += [[value["benchmark"], *(value[name] for name in ABOUT), value["shown"]] for value in values]
    short = _without_shared_end(list(dict.fromkeys(value["benchmark"] for value in values)))
    for value in values:
        value["line"] = short[value["benchmark"]]
    looked_at = tuple(short.values())
    spec = filled(
        _specification(unit, looked_at, LARGE if len(numbers) <= FEW_RUNS else SMALL),
        text,
        values=values,
        moved=moved,
        runs=[{"run": name} for name in numbers],
    )
    return Chart(f"{size}: {field.title}", text, spec, table)


@cache
def _specification(unit: str, benchmarks: tuple[str, ...], size: int) -> dict[str, Any]:
    axis = alt.Axis(title="run", labelExpr="split(datum.value, '_')[0]", labelAngle=0, labelOverlap=True)
    x = alt.X("run:N", sort=None, axis=axis)
    y = alt.Y("value:Q", scale=alt.Scale(zero=True)).title(unit)
    # In one column a name has room on a phone.
    columns = 2 if max(map(len, benchmarks)) <= SHORT_NAME else 1
    legend = alt.Legend(title=None, columns=columns, labelLimit=NARROW, symbolSize=60)
    style = looks("line", benchmarks, legend)
    hover = [f"{name}:N" for name in ("benchmark", "shown", *ABOUT)]
    moved = [f"{name}:N" for name in ("benchmark", "change", "before", "since", *ABOUT)]
    layers = [
        # All runs, in their order.
        of("runs").mark_point(opacity=0, size=0).encode(x=x),
        of("values").mark_line(strokeWidth=1.5).encode(x=x, y=y, color=style["color"], detail="stretch:N"),
        of("values")
        .mark_point(filled=True, size=size, opacity=1)
        .encode(x=x, y=y, **style, tooltip=hover, description="label:N"),
        of("moved")
        .mark_point(size=230, filled=False, strokeWidth=2, color=INK)
        .encode(x=x, y=y, tooltip=moved, description="label:N"),
    ]
    return specification(alt.layer(*layers), 220)


def _without_shared_end(titles: Sequence[str]) -> dict[str, str]:
    """Return each title without the parts, such as `-small-cpu`, that all of them end in."""
    parts = [title.split("-")[1:] for title in titles]
    shared = 0
    while all(len(one) > shared for one in parts) and len({one[-1 - shared] for one in parts}) == 1:
        shared += 1
    return {title: "-".join(title.split("-")[: -shared or None]) for title in titles}


def _values(runs: Sequence[Run], key: Key, figure: str, divisor: int) -> Iterator[dict[str, Any]]:
    stretch, before = 0, ""
    for run in runs:
        if (here := run.hardware) != before:
            stretch, before = stretch + 1, here
        value = run.records[key].value(figure) if key in run.records else None
        if value is not None:
            words = format_figure(figure, value)
            yield {
                "benchmark": key.title,
                "value": value / divisor,
                "stretch": stretch,
                "shown": words,
                "label": f"{key.title} in run {run.number}: {words}",
            } | _about(run)


def _moved(point: ChangePoint, keys: Sequence[Key], figure: str, divisor: int) -> Iterator[dict[str, Any]]:
    """The mark of a change point, if it is one of these lines."""
    change = point.change
    value = point.run.records[change.key].value(figure)
    if change.key in keys and change.figure == figure and value is not None:
        yield {
            "benchmark": change.key.title,
            "value": value / divisor,
            "before": format_figure(figure, change.before),
            "since": format_figure(figure, change.after),
            "change": change.percent,
            "label": f"{change.key.title} changed in run {point.run.number}: {change.percent}",
        } | _about(point.run)


def _about(run: Run) -> dict[str, str]:
    cpu = run.machine.get("cpu") or {}
    machine = [cpu.get("brand_raw", "unknown"), f"{run.machine.get('cores')} cores", gpus(run.machine)]
    return {
        "run": run.name,
        "date": run.moment[:16].replace("T", " "),
        "commit": run.short_commit,
        "torch": str(run.machine.get("torch")),
        "python": str(run.machine.get("python_version")),
        "machine": ", ".join(filter(None, machine)),
        "outcome": run.outcome,
    }
