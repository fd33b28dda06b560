from dataclasses import asdict

from bench.meters.allocations import CACHED, ELSEWHERE, LiveAllocation
from bench.record.record import Record
from bench.record.row_key import RowKey
from bench.report.alive import MOST_LINES, alive_lines, explanation
from bench.report.rows import CaseResult, Problem, Status

GIB = 2**30
MODEL = LiveAllocation(6 * GIB, 821, "sequential.py:6", "model = build().to(device)")
TENSOR = LiveAllocation(2**20, 1, "sequential.py:14", "tensor.copy_(state_dict[name].to(device))")


def test_a_line_says_how_much_how_many_and_which_code_asked() -> None:
    assert alive_lines([MODEL, TENSOR, LiveAllocation(512, 0, CACHED, ""), LiveAllocation(512, 2, ELSEWHERE, "")]) == [
        "    6.00 GiB in 821 tensors: sequential.py:6 model = build().to(device)",
        "    1.00 MiB in 1 tensor: sequential.py:14 tensor.copy_(state_dict[name].to(device))",
        "    0.00 MiB: cached by the allocator",
        "    0.00 MiB in 2 tensors: outside the recipe",
    ]


def test_many_lines_are_cut_and_none_of_their_bytes_is_lost() -> None:
    lines = alive_lines([MODEL] * (MOST_LINES + 3))
    assert len(lines) == MOST_LINES + 1
    assert lines[-1] == "    18.00 GiB in 2,463 tensors: 3 other lines"


def test_an_outcome_is_explained_figure_by_figure() -> None:
    known = {
        "device_requested_peak_bytes": 6 * GIB + 2**20,
        "host_file_peak_bytes": 0,
        "alive_at_peak": {
            "device_requested_peak_bytes": [asdict(MODEL), asdict(TENSOR)],
            "host_file_peak_bytes": [],
        },
    }
    assert list(explanation(CaseResult(RowKey("sequential", "xl"), Record.read(known)))) == [
        "sequential-xl: device requested peak 6.00 GiB",
        *alive_lines([MODEL, TENSOR]),
    ]
    assert list(explanation(CaseResult(RowKey("sequential", "xl"), Record(alive_at_peak=None)))) == []
    assert list(explanation(CaseResult(RowKey("sequential", "xl"), problem=Problem(Status.SKIPPED, "no room")))) == []
