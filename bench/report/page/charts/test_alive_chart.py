import pytest

pytest.importorskip("altair", reason="pages want the extra: pip install '.[report]'")

from bench.record.record import Record
from bench.record.row_key import RowKey
from bench.report.page.charts.alive_chart import alive_figures
from bench.report.rows import CaseResult
from bench.selftest.recorded_run import S, metered
from bench.selftest.sharded_run import of_ranks

HELD = {"bytes": S // 100, "tensors": 1, "line": "recipe.py:3", "code": "x"}
ALIVE = {"device_requested_peak_bytes": [HELD], "host_private_peak_bytes": [HELD]}


def test_what_a_rank_has_on_its_device_is_shown_as_parts_of_its_share() -> None:
    alone = CaseResult(RowKey("streamed", "small"), Record.read(metered("streamed") | {"alive_at_peak": ALIVE}))
    ranks = CaseResult(
        RowKey("streamed", "small", "fsdp", 100), Record.read(of_ranks("streamed", "fsdp", 100, alive_at_peak=ALIVE))
    )
    for result, ends, scale in ((alone, (0.01, 0.01), "the model"), (ranks, (1.0, 0.01), "S/N")):
        device, host = alive_figures([result], "small")
        assert tuple(figure.spec["datasets"]["bars"][0]["end"] for figure in (device, host)) == ends
        assert device.text.endswith(f"as multiples of {scale}")
        assert host.text.endswith("as multiples of the model")
