"""Options that need each other or exclude each other, in three tables. Checked before the options are parsed.

Options have their names in pytest's namespace; `cache=cold` is an option with that value. An option counts as given if
its value is not the default. Options of pytest-benchmark are included.
"""

from collections.abc import Mapping
from typing import Any

from bench.meters import KINDS

_OF_USER_MODEL = ("checkpoint", "state_key", "example_input", "rename", "allow_missing", "allow_surplus")
_OF_ONE_PROCESS = ("loader", "allow_missing", "find_minimum", "conformance", "versus")
_OF_ONE_RUN = (
    *("benchmark_compare", "require_comparison", "accept_regressions", "history", "benchmark_json", "export", "report"),
)

# An option, those of which one has to be there too, and the message.
NEEDS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("ranks", ("sharded",), "--ranks: one process loads a model by itself; add --sharded"),
    *((name, ("sharded",), "{}: one process has all of a model; add --sharded") for name in ("wrap", "tp_plan")),
    ("ranks_per_node", ("plan",), "--ranks-per-node: only a plan chooses its nodes; add --plan, or leave it out"),
    ("ranks_per_node", ("sharded",), "--ranks-per-node: one process loads a model by itself; add --sharded"),
    *((name, ("model",), "{} is for a model of yours: say with --model what builds it") for name in _OF_USER_MODEL),
    ("loader_bound", ("loader",), "--loader-bound is for a loader of yours: name it with --loader"),
    ("tolerate", ("loader",), "--tolerate is for a loader of yours: name it with --loader"),
    (
        "benchmark_compare_fail",
        ("benchmark_compare", "require_comparison", "accept_regressions"),
        "--benchmark-compare-fail: there is nothing to compare with; add --benchmark-compare",
    ),
)

# An option beside which a second one needs a third, and the message.
BESIDE: tuple[tuple[str, str, str, str], ...] = tuple(
    (
        name,
        "sharded",
        "plan",
        "{}: only planned ranks have a budget; add --plan, or leave it out",
    )
    for name in ("device_memory", "host_memory")
)

# Two options of which one may be there, and the message.
EXCLUDES: tuple[tuple[str, str, str], ...] = (
    ("stand_in", "plan", "--stand-in: a plan is made for sim or cpu; leave out --stand-in or --plan"),
    *(
        (
            "stand_in",
            f"device={name}",
            f"--stand-in: it stands in for a GPU, and --device is {name}; leave one of them out",
        )
        for name, kind in KINDS.items()
        if not kind.is_gpu
    ),
    ("sizes", "model", "--sizes names GPT-2s: leave it out beside --model"),
    ("dtype", "model", "--dtype is GPT-2's, yours has the one that it is built with: leave it out beside --model"),
    *((name, "sharded", "{}: it is of loads by one process; leave it out, or --sharded") for name in _OF_ONE_PROCESS),
    ("cache=cold", "sharded", "--cache cold: ranks of one machine share its page cache; leave it out, or --sharded"),
    ("cache=cold", "plan", "--cache cold: a plan reads no file; leave out --plan to measure cold loads"),
    ("find_minimum", "plan", "--find-minimum: a plan loads nothing; leave out --plan, or look at its column reserved"),
    *(
        (
            *(name, "versus"),
            "--versus: leave out what is about one run: comparisons with history, JSON, exports and pages",
        )
        for name in _OF_ONE_RUN
    ),
    *(
        (f"{name}=off", "versus", "--versus: a threshold cannot be off here; give a percentage, 0% for any change")
        for name in ("memory_compare_fail", "time_compare_fail")
    ),
)


def require_combination(given: Any, defaults: Mapping[str, Any]) -> None:
    """Raise `ValueError` with one line for options of pytest's namespace that do not go together."""

    def is_there(name: str) -> bool:
        attribute, equals, value = name.partition("=")
        found = getattr(given, attribute, None)
        return found == value if equals else found != defaults.get(attribute) and found not in (None, False, [])

    for name, other, message in EXCLUDES:
        if is_there(name) and is_there(other):
            raise ValueError(message.format(_as_typed(name)))
    for name, beside, needed, message in BESIDE:
        if is_there(name) and is_there(beside) and not is_there(needed):
            raise ValueError(message.format(_as_typed(name)))
    for name, others, message in NEEDS:
        if is_there(name) and not any(map(is_there, others)):
            raise ValueError(message.format(_as_typed(name)))
    if is_there("require_comparison") and is_there("memory_compare_fail=off") and is_there("time_compare_fail=off"):
        raise ValueError("--require-comparison: with both thresholds off there is none; leave out one of them")


def _as_typed(name: str) -> str:
    return f"--{name.replace('_', '-')}"
