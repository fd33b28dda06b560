"""Places for the names of points in a chart, so that no name is on another one or on a point."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from bench.report.page.charts.figure import LETTER, NARROW

# Of a line of text, of a point, and from a point to its name, in pixels.
LINE, RADIUS, SPACE = 13, 6, 5
# Lines of text that a name may be above or below its point.
FARTHEST = 14
# A name that is so many pixels away has a line to its point.
LEADER = 1.5 * LINE
# Of charts on a phone, on a page with two of them, and on one with one.
WIDTHS = (NARROW, 2 * NARROW, 3 * NARROW)

Side = Literal["left", "right"]
# Left, top, right and bottom, in pixels.
Box = tuple[float, float, float, float]
# Each with the width of the chart that it is on.
Boxes = list[tuple[int, Box]]


class Label(NamedTuple):
    """A name beside its point: `rise` is how many pixels it is above, `side` the way in which its text is aligned."""

    rise: float
    side: Side


def placed(points: Sequence[tuple[float, float]], names: Sequence[str], height: float) -> list[Label]:
    """Return a place for each name; points are in pixels from the left and the top of a chart as wide as `NARROW`.

    Names must meet on no chart of `WIDTHS`: on a wider one points are farther from each other, and names as long.
    """
    solid = [(width, _around(x * width / NARROW, y)) for width in WIDTHS for x, y in points]
    leaders: list[tuple[int, Box]] = []
    found: dict[int, Label] = {}
    for number in sorted(range(len(points)), key=lambda one: points[one]):
        places = {label: _Place.of(points[number], names[number], label) for label in _candidates()}
        costs = {label: place.cost(solid, leaders, height) for label, place in places.items()}
        found[number] = best = min(costs, key=costs.__getitem__)
        solid += places[best].name
        leaders += places[best].leader
    return [found[number] for number in range(len(points))]


class _Place(NamedTuple):
    """The boxes of a name on charts of all widths, and those of the line to its point, if it has one."""

    name: Boxes
    leader: Boxes

    @classmethod
    def of(cls, point: tuple[float, float], name: str, label: Label) -> "_Place":
        place, length = cls([], []), LETTER * len(name)
        for width in WIDTHS:
            x, y = point[0] * width / NARROW, point[1]
            left = x + SPACE if label.side == "left" else x - SPACE - length
            middle = y - label.rise
            place.name.append((width, (left, middle - LINE / 2, left + length, middle + LINE / 2)))
            if abs(label.rise) > LEADER:
                place.leader.append((width, (x - 1, min(middle, y), x + 1, max(middle, y))))
        return place

    def cost(self, solid: Boxes, leaders: Boxes, height: float) -> tuple[float, float, float]:
        """Return the pixels beyond a chart, then the area shared with names and points, then that with lines."""
        outside = sum(_outside(box, width, height) for width, box in self.name)
        return outside, _meeting(self.name, solid), _meeting(self.name, leaders) + _meeting(self.leader, solid)


def _candidates() -> Iterator[Label]:
    """Yield places, the nearest first."""
    for lines in range(1, FARTHEST + 1):
        for side in ("left", "right"):
            for way in (1, -1):
                yield Label(way * lines * LINE, side)


def _around(x: float, y: float) -> Box:
    return x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS


def _meeting(boxes: Boxes, others: Boxes) -> float:
    return sum(shared(box, one) for width, box in boxes for its, one in others if its == width)


def _outside(box: Box, width: float, height: float) -> float:
    """Return the pixels by which a box is beyond the chart."""
    left, top, right, bottom = box
    return max(0.0, -left) + max(0.0, -top) + max(0.0, right - width) + max(0.0, bottom - height)


def shared(one: Box, other: Box) -> float:
    """Return the area that two boxes share, in square pixels."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)
