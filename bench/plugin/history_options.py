"""What the command line says of history."""

import re
from dataclasses import dataclass
from typing import Any

OPTIONS = (
    (
        *("--memory-compare-fail", "1%", "PERCENT"),
        "how much a peak may grow with --benchmark-compare; off: any amount",
    ),
    (
        *("--time-compare-fail", "5%", "PERCENT"),
        "how much slower a load may become with --benchmark-compare, beyond the spread of other runs; off: any amount",
    ),
    ("--require-comparison", False, None, "compare, and fail if there is nothing to compare with"),
    (
        *("--accept", False, None),
        "compare, and accept what is worse: later runs are compared with this one",
    ),
    ("--history", False, None, "run nothing, and show at which recorded runs a figure changed"),
)


@dataclass(frozen=True)
class HistoryOptions:
    """What to compare a run with, and what of it fails. Thresholds are fractions; None: nothing fails.

    `compare` is pytest-benchmark's: False, True for the runs that there are, or what names one. `show`: nothing is run.
    """

    compare: str | bool
    memory_threshold: float | None
    time_threshold: float | None
    required: bool
    accept: bool
    show: bool


def history_options(options: Any) -> HistoryOptions:
    """The options of one run, checked. Raises `ValueError` with one line: what is wrong, and what would be right."""
    if options.benchmark_compare == "":
        raise ValueError("--benchmark-compare=: no run is named; name one, or leave out the =")
    compare = options.benchmark_compare or options.require_comparison or options.accept or False
    if options.benchmark_compare_fail and not compare:
        raise ValueError("--benchmark-compare-fail: there is nothing to compare with; add --benchmark-compare")
    memory = _fraction("--memory-compare-fail", options.memory_compare_fail)
    time = _fraction("--time-compare-fail", options.time_compare_fail)
    if options.require_comparison and memory is None and time is None:
        raise ValueError("--require-comparison: with both thresholds off there is none; leave out one of them")
    return HistoryOptions(
        compare=compare,
        memory_threshold=memory,
        time_threshold=time,
        required=options.require_comparison,
        accept=options.accept,
        show=options.history,
    )


def _fraction(option: str, text: str) -> float | None:
    if text == "off":
        return None
    if not re.fullmatch(r"\d+(\.\d+)?%", text):
        raise ValueError(f"{option}: {text!r} is no percentage; give one such as 1% or 0.5%, or off")
    return float(text.removesuffix("%")) / 100
