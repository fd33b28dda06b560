"""Parts of every chart: its look, its text for people who do not see it, and the table behind it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

# Told apart by most people who do not see all colours (after Okabe and Ito), with a contrast of 3 to 1 or more on white
# and on the dark page.
COLOURS = ("#2f7fc1", "#c9680a", "#1f936a", "#a35fb8", "#b8860b", "#d2495a", "#5b7c99")
# As many less one: the eighth has the first one's colour, and another shape.
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")

# Of the text around it: a page that is dark has light text.
INK = "currentColor"

# Of a chart on a narrow page, and of a letter of its text, in pixels.
NARROW, LETTER = 300, 7
# About as many ticks has an axis, however wide it is.
TICKS = 5

Values = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Chart:
    """One chart: `text` says what it shows, `spec` is Vega-Lite, and `table` holds its data, heading first.

    `raw` is a file with every point, where those are too many for a table.
    """

    title: str
    text: str
    spec: dict[str, Any]
    table: Sequence[Sequence[str]]
    raw: str | None = None


def of(name: str) -> alt.Chart:
    """A chart of the values that its specification is given under a name."""
    return alt.Chart(alt.Data(name=name))  # Altair's own classes have no types


def specification(chart: Any, height: int) -> dict[str, Any]:
    """The Vega-Lite of a chart as wide as its place on the page, without its values.

    Altair checks each specification against the schema, which takes long: one is made for all charts of a kind.
    """
    axis = {"labelColor": INK, "titleColor": INK, "domainColor": INK, "tickColor": INK, "gridColor": INK}
    spec: dict[str, Any] = (
        chart.properties(width="container", height=height)
        .configure(background="transparent", font="system-ui, sans-serif")
        .configure_axis(
            **axis, gridOpacity=0.12, titleFontWeight="normal", labelFontSize=11, titleFontSize=11, labelFlush=False
        )
        .configure_view(stroke=None)
        .configure_text(fill=INK, fontSize=11)
        .configure_rule(color=INK)
        .configure_legend(labelColor=INK, titleColor=INK, orient="bottom")
        .to_dict()
    )
    return spec


def filled(spec: Mapping[str, Any], text: str, **values: Values) -> dict[str, Any]:
    """A specification with its values, by their names, and with words for those who do not see it.

    Layers without any values are left out: Vega warns of an axis of nothing.
    """
    layers = [layer for layer in spec["layer"] if values[layer.get("data", spec.get("data"))["name"]]]
    return {**spec, "description": text, "layer": layers, "datasets": values}


def ratio_axis(title: str | None) -> alt.Axis:
    """An axis of multiples of S: its labels have as many digits as tell its ticks apart."""
    return alt.Axis(title=title, labelExpr="datum.label + 'x'", tickCount=TICKS)


def looks(field: str, values: Sequence[str], legend: alt.Legend | None) -> dict[str, Any]:
    """A colour and a shape for each value of a field."""
    colour, shape = (
        alt.Scale(domain=list(values), range=[table[index % len(table)] for index in range(len(values))])
        for table in (COLOURS, SHAPES)
    )
    return {
        "color": alt.Color(f"{field}:N", scale=colour, legend=legend),
        "shape": alt.Shape(f"{field}:N", scale=shape, legend=legend),
    }
