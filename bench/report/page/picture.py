"""The picture in the README: the timelines of a run, as one image."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import vl_convert

from bench.report.page.charts.figure import INK, Figure
from bench.report.page.charts.timelines import SERIES

COLUMNS, WIDTH, HEIGHT = 4, 190, 130
PAGE, TEXT = "#ffffff", "#1d2430"


def picture(figures: Sequence[Figure], title: str) -> str:
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


def _legend(figures: Sequence[Figure]) -> list[str]:
    drawn = {value["memory"] for figure in figures for value in figure.spec["datasets"]["peaks"]}
    lines = ", ".join(f"{one.name} {one.stroke}" for one in SERIES if one.name in drawn)
    return [
        f"multiples of the model's bytes over seconds: {lines}",
        "a thin line is what theory allows, a dot the peak",
    ]


def _part(figure: Figure) -> dict[str, Any]:
    """A chart within others: it has its values where it uses them, and its size and name."""
    spec = {name: value for name, value in figure.spec.items() if name not in ("datasets", "config", "$schema")}
    layers = [_inlined(layer, figure.spec["datasets"]) for layer in spec["layer"] if layer["data"]["name"] != "hovered"]
    size = {"width": WIDTH, "height": HEIGHT}
    return {**spec, "layer": layers, **size, "title": {"text": figure.title, "fontSize": 12, "anchor": "start"}}


def _inlined(layer: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {**layer, "data": {"values": values[layer["data"]["name"]]}}
