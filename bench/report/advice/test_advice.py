"""The advice for a budget that some loads fit."""

from typing import Any

import pytest

from bench.meters.budget import Budget
from bench.report.advice.advice import advised
from bench.report.advice.table_rows import GIB, MIB, never, rank_row, row, said
from bench.report.rows import Problem, Status


def test_where_nothing_was_tried_nothing_is_said() -> None:
    assert advised([row("baseline", fits=None)], [], never, Budget(2 * GIB)) is None
    assert advised([], [], never, Budget()) is None


def test_the_fastest_of_those_that_fit_is_to_be_used() -> None:
    advice = said(
        row("baseline", fits=False, first_logits_seconds=0.1),
        row("load_assign", first_logits_seconds=1.0),
        row(
            "streamed",
            first_logits_seconds=0.4,
            device_requested_peak_bytes=3 * GIB // 2,
            device_reserved_peak_bytes=3 * GIB // 2,
            device_peak_ratio=1.5,
        ),
    )
    assert advice.strategy == "streamed"
    assert advice.paragraph == (
        "Use streamed for small on one device. It takes 1.5 GiB of the 2 GiB of the device. "
        "After the load, 1 GiB of the 2 GiB stay free for activations. "
        "The first output comes after 0.40 s, 2.5 times as fast as with load_assign, the next. "
        "baseline does not fit."
    )


def test_of_those_that_are_as_fast_the_one_that_takes_less() -> None:
    advice = said(
        row("streamed", first_logits_seconds=0.40, host_peak_ratio=0.1),
        row("load_assign", first_logits_seconds=0.43),
        row("baseline", fits=False),
        row("sequential", fits=False),
    )
    assert advice.strategy == "load_assign"
    assert advice.paragraph == (
        "Use load_assign for small on one device. It takes 1 GiB of the 2 GiB of the device. "
        "After the load, 1 GiB of the 2 GiB stay free for activations. "
        "The first output comes after 0.43 s, as soon as with streamed, which takes more memory. "
        "baseline, sequential do not fit."
    )


@pytest.mark.parametrize("times", [{}, {"timed_on": "cpu", "first_logits_seconds": 0.5}])
def test_without_times_of_the_device_the_one_that_takes_least(times: dict[str, Any]) -> None:
    """Simulated loads are timed on the CPU, where a mapped model copies nothing: that is no reason for a GPU."""
    quick = times and times | {"first_logits_seconds": 0.1}
    advice = said(
        row("load_assign", host_peak_ratio=0.2, **quick),
        row("sequential", device_peak_ratio=1.2, device_reserved_peak_bytes=GIB * 6 // 5, **quick),
        row("streamed", **times),
    )
    assert advice.paragraph == (
        "Use streamed for small on one device. It takes 1 GiB of the 2 GiB of the device. After the load, 1 GiB of "
        "the 2 GiB stay free for activations. Of the 3 that fit, it takes the least memory."
    )


def test_of_those_that_are_equal_the_one_that_takes_least_by_theory_whatever_noise_says() -> None:
    bounds: dict[str, Any] = {"device_bound_ratio": 1.0}
    for noise in (0.0, 0.04):
        equal = (
            row("load_assign", host_bound_ratio=0.04, host_peak_ratio=noise, **bounds),
            row("mmap_assign", host_bound_ratio=0.0, host_peak_ratio=0.04 - noise, **bounds),
        )
        advice = said(*equal, row("baseline", device_peak_ratio=2.0))
        assert " Of the 3 that fit, it takes the least memory; load_assign takes as little." in advice.paragraph
        assert advice.strategy == "mmap_assign"


def test_what_was_not_timed_for_want_of_memory_may_be_used() -> None:
    advice = said(row("streamed", problem=Problem(Status.SKIPPED, "takes 13.5 GB of host memory")))
    assert advice.strategy == "streamed"
    assert advice.paragraph == (
        "Use streamed for small on one device. It takes 1 GiB of the 2 GiB of the device. "
        "After the load, 1 GiB of the 2 GiB stay free for activations."
    )


def test_what_fits_and_fails_otherwise_is_not_to_be_used() -> None:
    advice = said(
        row("streamed", problem=Problem(Status.FAILED, "a weight is wrong"), first_logits_seconds=0.1),
        row("load_assign"),
    )
    assert advice.strategy == "load_assign"
    assert advice.paragraph.endswith(" stay free for activations. streamed failed otherwise.")


def test_of_a_mapped_model_the_file_has_to_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.report.advice.left.planned_empty_bytes", lambda: 200 * MIB)
    on_host: dict[str, Any] = {"device": "cpu", "device_budget_bytes": None, "device_reserved_peak_bytes": None}
    advice = said(row("mmap_assign", ownership="mapped", host_budget_bytes=GIB, **on_host))
    assert advice.paragraph == (
        "Use mmap_assign for small. It takes 0 MiB of the 1 GiB of the host, beside an empty process. "
        "After the load, 824 MiB of the host's 1 GiB stay free for activations. "
        "Its weights stay in the pages of the file, which has to stay as it is "
        "while the model is used."
    )


def test_the_largest_model_counts() -> None:
    advice = said(row("streamed", size="small"), row("load_assign", size="large", state_bytes=GIB + MIB))
    assert advice.strategy == "load_assign"
    assert advice.paragraph.startswith("Use load_assign for large on one device. ")


def test_its_code_is_there_to_be_pasted() -> None:
    advice = said(row("streamed"))
    code = advice.code()
    assert code
    compile(code, "load_streamed.py", "exec")
    count = len(code.splitlines())
    assert advice.lines("results/report/load_streamed.py")[-3:] == [
        f"Its code needs torch and the standard library only: results/report/load_streamed.py, {count} lines",
        "    from load_streamed import streamed",
        '    model = streamed(build, "checkpoint.pt", torch.device("cuda"))  # build() makes your model',
    ]
    assert f"Its code needs torch and the standard library only: load_streamed.py, {count} lines" in advice.lines()
    assert said(row("mine", loader="mine.py:mine")).code() is None
    *_, used = said(row("streamed", cast="bfloat16")).lines()
    assert 'torch.device("cuda"), dtype=torch.bfloat16)' in used


def test_of_ranks_the_fewest_that_fit_and_of_those_what_takes_least() -> None:
    advice = said(
        rank_row("streamed", 2, fits=False),
        rank_row("load_then_shard", 8, fits=False),
        rank_row("broadcast", 8, device_requested_peak_bytes=3 * GIB // 2, device_reserved_peak_bytes=7 * GIB // 4),
        rank_row("dcp", 8, node_private_peak_bytes=GIB),
        rank_row("streamed", 8, node_private_peak_bytes=GIB // 2, device_reserved_peak_bytes=GIB + 64 * MIB),
        rank_row("streamed", 64),
    )
    assert (advice.strategy, advice.of_ranks) == ("streamed", True)
    assert advice.paragraph == (
        "Use streamed for small on 8 devices, divided by fsdp. It takes 1.1 GiB of the 2 GiB of each device and 512 "
        "MiB of the 64 GiB of each node, beside 8 empty processes. After the load, 960 MiB of each 2 GiB stay free for "
        "activations. "
        "Of the 3 that fit, it takes the least memory. On 2 devices nothing fits. load_then_shard fsdp does not fit."
    )


def test_ways_to_divide_are_compared_by_bytes() -> None:
    """Of tensor parallelism a rank holds more: a smaller multiple of its share is more memory."""
    advice = said(
        rank_row("streamed", 8, "tensor", share_bytes=2 * GIB),
        rank_row("streamed", 8, device_requested_peak_bytes=GIB + GIB // 4),
    )
    assert advice.paragraph.startswith("Use streamed for small on 8 devices, divided by fsdp. ")


def test_what_a_load_gives_back_is_free_after_it() -> None:
    """`broadcast` takes half a GiB more while it loads, and its allocator takes a quarter beside all."""
    peaks: dict[str, Any] = {"device_requested_peak_bytes": 3 * GIB // 2, "device_reserved_peak_bytes": 7 * GIB // 4}
    assert (
        " After the load, 768 MiB of each 2 GiB stay free for activations."
        in said(rank_row("broadcast", 8, **peaks)).paragraph
    )


def test_the_command_and_all_lines_are_of_one_text() -> None:
    typed = {"--model": ["/models/my llama/config.json"], "--plan": [], "--device-memory": ["2GiB"]}
    advice = advised([row("streamed")], [], never, Budget(2 * GIB), typed)
    assert advice
    checks = "    pytest bench --model {} --strategies streamed --device-memory 2GiB"
    assert advice.lines()[:3] == [advice.paragraph, "Check it:", checks.format("'/models/my llama'")]
    assert advice.recorded().lines() == [
        advice.paragraph,
        "Check it:",
        checks.format("'my llama'"),
        *advice.lines()[3:],
    ]
