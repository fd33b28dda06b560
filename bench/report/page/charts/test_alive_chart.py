import pytest

pytest.importorskip("altair", reason="pages want the extra: pip install '.[report]'")

from bench.record.record import Record
from bench.record.row_key import RowKey
from bench.report.page.charts.alive_chart import MOST_LINES, alive_figures
from bench.report.page.charts.figure import Chart
from bench.report.rows import CaseResult
from bench.selftest.recorded_run import S, metered
from bench.selftest.sharded_run import of_ranks

HELD = {"bytes": S // 100, "tensors": 1, "line": "recipe.py:3", "code": "x = y"}
ALIVE = {"device_requested_peak_bytes": [HELD], "host_private_peak_bytes": [HELD]}


def chart(**record: object) -> Chart:
    [found] = alive_figures(
        [CaseResult(RowKey("streamed", "small"), Record.read(metered("streamed") | record))], "small"
    )
    return found


def test_what_a_rank_has_on_its_device_is_shown_as_parts_of_its_share() -> None:
    ranks = CaseResult(
        RowKey("streamed", "small", "fsdp", 100), Record.read(of_ranks("streamed", "fsdp", 100, alive_at_peak=ALIVE))
    )
    [of_share] = alive_figures([ranks], "small")
    for figure, end, scale in ((chart(alive_at_peak=ALIVE), 0.01, "the model"), (of_share, 1.0, "S/N")):
        assert [bar["end"] for bar in figure.spec["datasets"]["bars"]] == [end]
        assert figure.text.endswith(f"as multiples of {scale}")
    assert of_share.title == "small, fsdp on 100 ranks"


def test_one_chart_has_the_device_peak_and_where_there_is_none_that_of_the_host() -> None:
    host = {"host_private_peak_bytes": [HELD | {"code": "on the host"}]}
    assert "requested peak on the device" in chart(alive_at_peak=ALIVE | host).text
    on_host = chart(alive_at_peak=host)
    assert "private peak on the host" in on_host.text
    assert "on the host" in on_host.spec["datasets"]["bars"][0]["text"]
    assert (
        alive_figures(
            [CaseResult(RowKey("streamed", "small"), Record.read(metered("streamed") | {"alive_at_peak": None}))],
            "small",
        )
        == []
    )


def test_every_bar_has_the_text_of_its_line_and_begins_where_the_one_above_ends() -> None:
    parts = [HELD | {"bytes": S}, HELD | {"bytes": S // 4, "line": "recipe.py:7", "code": "p.copy_(q)"}]
    first, second = chart(alive_at_peak={"device_requested_peak_bytes": parts}).spec["datasets"]["bars"]
    assert [first["text"], second["text"]] == ["1.00x  recipe.py:3  x = y", "0.25x  recipe.py:7  p.copy_(q)"]
    assert (first["start"], first["end"], second["start"], second["end"]) == (0, 1, 1, 1.25)
    assert first["bottom"] < second["y"] < second["top"] < second["bottom"]


def test_allocated_and_reserved_are_marks_on_the_last_bar() -> None:
    peaks = {"device_allocated_peak_bytes": S + S // 10, "device_reserved_peak_bytes": S + S // 5}
    values = chart(alive_at_peak=ALIVE, **peaks).spec["datasets"]
    assert [(one["name"], one["x"]) for one in values["marks"]] == [("allocated", 1.1), ("reserved", 1.2)]
    assert {one["middle"] for one in values["marks"]} == {values["bars"][-1]["middle"]}
    assert chart(alive_at_peak=ALIVE, **dict.fromkeys(peaks)).spec["datasets"]["marks"] == []


def test_lines_without_a_hundredth_of_the_model_have_no_bar_and_many_share_one() -> None:
    tiny = HELD | {"bytes": 256}
    values = chart(alive_at_peak={"device_requested_peak_bytes": [HELD, tiny]})
    assert len(values.spec["datasets"]["bars"]) == 1
    # The data have all of them.
    assert len(values.table) == 1 + 2
    assert len(chart(alive_at_peak={"device_requested_peak_bytes": [tiny]}).spec["datasets"]["bars"]) == 1
    many = chart(alive_at_peak={"device_requested_peak_bytes": [HELD] * (MOST_LINES + 3)}).spec["datasets"]["bars"]
    assert len(many) == MOST_LINES + 1
    assert many[-1]["text"] == "0.03x  3 other lines"
