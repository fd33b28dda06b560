import pytest

pytest.importorskip("altair", reason="pages want the extra: pip install '.[report]'")

from bench.report.page.charts.figure import looks


def test_many_lines_look_different() -> None:
    """Colours and shapes are used again at different places."""
    style = looks("strategy", [f"s{number}" for number in range(40)], None)
    colours, shapes = (style[name].to_dict()["scale"]["range"] for name in ("color", "shape"))
    assert len(set(zip(colours, shapes, strict=True))) == 40
