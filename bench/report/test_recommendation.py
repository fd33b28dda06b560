from dataclasses import replace

import pytest

from bench.record.row_key import RowKey
from bench.report.rows import CaseResult, rows
from bench.report.table import terminal_lines
from bench.selftest.case_results import RUN, L, S, limit, memory, seconds


def test_a_limit_is_never_best() -> None:
    best = terminal_lines(rows(RUN), 120)[-1]
    assert terminal_lines(rows([limit("memory", 1e12), *RUN, limit("mapping", 1e12)]), 120)[-1] == best
    assert not [line for line in terminal_lines(rows([limit("memory", 1e12)]), 120) if "Least" in line]


def test_times_that_were_taken_elsewhere_say_where() -> None:
    simulated, timed = memory("per_tensor", 0.2, device=1.0), seconds("per_tensor", 1.0)
    simulated.record.device, timed.record.device = "sim", "cpu"
    [row] = rows([simulated, timed])
    assert row.record.device == "sim"
    assert terminal_lines([row], 120)[-2:] == [
        "Least memory: per_tensor (GPU 0.65 GiB, RAM 0.13 GiB)",
        "Fastest on this CPU: per_tensor (1.00 s)",
    ]


def test_memory_and_times_are_told_apart_and_each_is_said_without_the_other() -> None:
    assert terminal_lines(rows(RUN[:3]), 120)[-1].startswith("Least memory: mmap_assign (RAM 0.00 GiB, mapped); ")
    for device, where in (("cpu", "CPU"), ("cuda:0", "GPU")):
        whole = {"state_bytes": S, "largest_tensor_bytes": L, "device": device}
        timed = replace(RUN[3], record=RUN[3].record.with_fields(whole))
        assert terminal_lines(rows([timed]), 120)[-1] == f"Fastest on this {where}: baseline (3.00 s)"


def told(table: list[CaseResult]) -> list[str]:
    return [line for line in terminal_lines(rows(table), 200) if line.startswith(("Least", "Fastest"))]


def test_devices_come_before_hosts_and_hosts_before_nothing() -> None:
    """A simulated device is not chosen for by the times of a CPU."""
    frugal = memory("frugal", 0.0, device=1.001)
    run = [memory("quick", 1.0, device=1.0), frugal, memory("large", 0.0, device=1.2)]
    times = [seconds("frugal", 2.0), seconds("quick", 1.0), seconds("large", 0.1)]
    assert told([*run, *times]) == [
        "Least memory: frugal (GPU 0.65 GiB, RAM 0.00 GiB)",
        "Fastest on this CPU: large (0.10 s)",
    ]
    assert told(run) == ["Least memory: frugal (GPU 0.65 GiB, RAM 0.00 GiB)"]


@pytest.mark.parametrize("noise", [-0.02, 0.0, 0.02])
def test_what_noise_does_not_tell_apart_is_named_together_in_the_order_of_the_table(noise: float) -> None:
    run = [memory("one", 0.2 + noise, device=1.0), memory("other", 0.2, device=1.0), memory("third", 0.3, device=1.0)]
    times = [seconds("one", 1.0 + noise), seconds("other", 1.0), seconds("third", 1.3)]
    low, high = sorted(f"{int(ratio * S) / 2**30:.2f}" for ratio in (0.2, 0.2 + noise))
    span = f"{low} to {high}" if noise else low
    assert told(run) == [f"Least memory: one, other (GPU 0.65 GiB, RAM {span} GiB)"]
    assert told([*run, *times])[-1].startswith("Fastest on this CPU: one, other (")


def test_of_the_suites_own_theory_decides_and_no_noise() -> None:
    for noise in (-0.002, 0.002):
        run = [memory(name, 0.049, device=1.0) for name in ("load_assign", "mmap_assign")]
        run[1].record.update(host_bound_ratio=0.0, host_peak_ratio=0.0, host_private_peak_bytes=0)
        run[0].record.update(host_peak_ratio=0.049 + noise, host_private_peak_bytes=int((0.049 + noise) * S))
        assert told(run)[0].startswith("Least memory: mmap_assign, load_assign (GPU 0.65 GiB, RAM 0.00 to 0.03 GiB)")


def test_what_is_best_is_said_of_the_largest_size() -> None:
    small, xl = memory("baseline", 2.0), memory("sequential", 2.0)
    xl = CaseResult(RowKey("sequential", "xl"), xl.record.with_fields(state_bytes=10 * S))
    run = [small, xl, seconds("baseline", 1.0), CaseResult(RowKey("sequential", "xl"), seconds("", 9.0).record)]
    assert told(run) == ["Least memory: sequential (RAM 1.31 GiB)", "Fastest on this CPU: sequential (9.00 s)"]
