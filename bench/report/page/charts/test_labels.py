from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("altair", reason="pages want the extra: pip install '.[report]'")

from bench.report.page.charts.figure import LETTER, NARROW
from bench.report.page.charts.labels import LINE, RADIUS, SPACE, Box, Label, placed, shared

# Of a chart with 18 points.
HEIGHT = 360


def boxes(points: list[tuple[float, float]], names: list[str], width: float = NARROW) -> list[Box]:
    """Return the boxes of the names and of the points of a chart that is drawn in a width."""
    found = []
    for (narrow_x, y), name, label in zip(points, names, placed(points, names, HEIGHT), strict=True):
        x, length = narrow_x * width / NARROW, LETTER * len(name)
        left = x + SPACE if label.side == "left" else x - SPACE - length
        found.append((left, y - label.rise - LINE / 2, left + length, y - label.rise + LINE / 2))
        found.append((x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS))
    return found


@pytest.mark.parametrize("width", [NARROW, 450, 600, 900, 1200])
def test_eighteen_names_meet_neither_each_other_nor_a_point(width: float) -> None:
    """Loaders of a recorded run: five have the same figures, and seven the same peak."""
    cluster = [(26 + 2 * number, 356.0) for number in range(5)]
    level = [(30 + 25 * number, 210.0) for number in range(7)]
    others = [(120.0, 90.0), (235.0, 90.0), (240.0, 90.0), (130.0, 165.0), (290.0, 165.0), (70.0, 196.0)]
    names = ["safetensors_load_model", "runai_model_streamer", "streamed", "dcp", "accelerate", "baseline"] * 3
    found = boxes(cluster + level + others, names, width)
    points = set(found[1::2])
    meeting = [pair for pair in combinations(found, 2) if not points.issuperset(pair) and shared(*pair) > 0]
    assert meeting == []
    if width == NARROW:
        assert all(
            left >= 0 and right <= NARROW and top >= 0 and bottom <= HEIGHT for left, top, right, bottom in found[::2]
        )


@settings(max_examples=20)
@given(st.lists(st.tuples(st.floats(0, NARROW), st.floats(0, HEIGHT)), max_size=6))
def test_every_point_has_a_name_within_the_chart(points: list[tuple[float, float]]) -> None:
    for left, top, right, bottom in boxes(points, ["name"] * len(points))[::2]:
        assert left >= 0
        assert top >= 0
        assert right <= NARROW
        assert bottom <= HEIGHT


def test_a_name_stands_beside_its_point_where_there_is_room() -> None:
    assert placed([(100.0, 100.0)], ["a"], HEIGHT) == [Label(LINE, "left")]
    assert placed([(295.0, 100.0)], ["baseline"], HEIGHT) == [Label(LINE, "right")]
