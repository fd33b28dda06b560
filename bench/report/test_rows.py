from dataclasses import replace

import pytest

from bench.record.record import Record
from bench.record.row_key import RowKey
from bench.report.rows import CaseResult, rows
from bench.selftest.case_results import RUN, against_limit, limit, memory


def test_a_row_is_what_was_found_of_one_strategy() -> None:
    [baseline, mapped, per_tensor] = rows(RUN)
    assert (baseline.name, mapped.name, per_tensor.name) == ("baseline", "mmap_assign", "per_tensor")
    assert baseline.record.host_peak_ratio == 2.0
    assert baseline.record.load_seconds == 1.5


def test_limits_end_the_rows_of_their_size() -> None:
    small = [limit("memory", 2e9), *RUN[:2], limit("mapping", 3e9), RUN[2]]
    large = [replace(one, key=one.key._replace(size="large")) for one in small]
    names = ["baseline", "mmap_assign", "per_tensor", "limit: memory", "limit: mapping"]
    for run in (small + large, large + small):
        assert [row.name for row in rows(run)] == names * 2
        assert [row.size for row in rows(run)] == [run[0].key.size] * 5 + [run[-1].key.size] * 5


@pytest.mark.parametrize("order", [1, -1])
def test_faults_are_those_of_the_load_that_no_meter_disturbed(order: int) -> None:
    metered, timed = memory("baseline", 2.0), against_limit("baseline", 3.0, 1.0, (100, 1))
    metered.record.update(minor_faults=99_000, major_faults=5)
    [row] = rows([metered, timed][::order])
    assert (row.record.minor_faults, row.record.major_faults) == (100, 1)
    [row] = rows([metered])
    assert (row.record.minor_faults, row.record.major_faults) == (99_000, 5)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_what_was_tried_stays_when_a_row_is_put_together(order: tuple[int, int]) -> None:
    results = [
        CaseResult(
            RowKey("streamed", "small"), Record(strategy="streamed", state_bytes=1, device_reserved_peak_bytes=7)
        ),
        CaseResult(RowKey("streamed", "small"), Record(strategy="streamed", state_bytes=1, fits=False, fate="killed")),
    ]
    [whole] = rows(results[place] for place in order)
    assert (whole.record.fits, whole.record.device_reserved_peak_bytes) == (False, 7)
