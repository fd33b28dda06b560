"""The picture in the README: the timelines of a run, as one image."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import vl_convert

from bench.report.page.charts.figure import INK, Chart
from bench.report.page.charts.timelines import HEIGHT, SERIES

COLUMNS, WIDTH = 4, 190
PAGE, TEXT = "#ffffff", "#1d2430"

# Data that the page shows and a small image has no room for.
LEFT_OUT = {"hovered", "moments", "named_left", "named_right"}


def picture(figures: Sequence[Chart], title: str) -> str:
    """An SVG of charts with the same axes beside each other, as the page has them, in colours for a light page."""
    spec = {
        "$schema": figures[0].spec["$schema"],
        "title": {"text": title, "subtitle": _legend(figures), "anchor": "start", "fontSize": 15, "offset": 14},
        "columns": COLUMNS,
        "spacing": 14,
        "concat": [_part(figure) for figure in figures],
        "config": figures[0].spec["config"] | {"background": PAGE},
        "padding": 12,
    }
    # In an image there is no text around it whose colour it could have.
    return vl_convert.vegalite_to_svg(json.loads(json.dumps(spec).replace(INK, TEXT)))


def _legend(figures: Sequence[Chart]) -> list[str]:
    drawn = {value["memory"] for figure in figures for value in figure.spec["datasets"]["peaks"]}
    lines = ", ".join(f"{one.name} {one.stroke}" for one in SERIES if one.name in drawn)
    return [
        f"memory as multiples of S, over seconds: {lines}",
        "a thin line is the bound, a dot is the peak",
    ]


def _part(figure: Chart) -> dict[str, Any]:
    """A chart within others: it has its values where it uses them, and its size and name."""
    spec = {name: value for name, value in figure.spec.items() if name not in ("datasets", "config", "$schema")}
    shown = [layer for layer in spec["layer"] if layer["data"]["name"] not in LEFT_OUT]
    layers = [_inlined(layer, figure.spec["datasets"]) for layer in shown]
    size = {"width": WIDTH, "height": HEIGHT}
    return {**spec, "layer": layers, **size, "title": {"text": figure.title, "fontSize": 12, "anchor": "start"}}


def _inlined(layer: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {**layer, "data": {"values": values[layer["data"]["name"]]}}
