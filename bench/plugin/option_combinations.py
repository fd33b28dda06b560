"""Options that need each other or exclude each other, in three tables. Checked before the options are parsed.

Options have their names in pytest's namespace; `cache=cold` is an option with that value. An option counts as given if
its value is not the default. Options of pytest-benchmark are included.
"""

from collections.abc import Mapping
from typing import Any

from bench.meters import KINDS

_OF_USER_MODEL = ("checkpoint", "state_key", "example_input", "rename", "allow_missing", "allow_surplus")
_OF_MANY_PROCESSES = ("ranks", "wrap", "tp_plan", "ranks_per_node")
_OF_ONE_PROCESS = ("loader", "allow_missing", "find_minimum", "conformance", "versus")
_OF_ONE_RUN = (
    *("benchmark_compare", "require_comparison", "accept_regressions", "history", "benchmark_json", "export", "report"),
)

# An option, those of which one has to be there too, and the message.
NEEDS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    *((name, ("sharded",), "{} is for loads by many processes; add --sharded") for name in _OF_MANY_PROCESSES),
    ("ranks_per_node", ("plan",), "--ranks-per-node is for plans; add --plan, or leave it out"),
    *((name, ("model",), "{} is for your own model; name it with --model") for name in _OF_USER_MODEL),
    *((name, ("loader",), "{} is for your own loader; name it with --loader") for name in ("loader_bound", "tolerate")),
    (
        "benchmark_compare_fail",
        ("benchmark_compare", "require_comparison", "accept_regressions"),
        "--benchmark-compare-fail: nothing is compared; add --benchmark-compare",
    ),
)

# An option beside which a second one needs a third, and the message.
BESIDE: tuple[tuple[str, str, str, str], ...] = tuple(
    (name, "sharded", "plan", "{} limits ranks in a plan only; add --plan, or leave it out")
    for name in ("device_memory", "host_memory")
)

# Two options of which one may be there, and the message.
EXCLUDES: tuple[tuple[str, str, str], ...] = (
    ("stand_in", "plan", "--stand-in: a plan runs on sim or cpu; leave out --stand-in or --plan"),
    *(
        (
            "stand_in",
            f"device={name}",
            f"--stand-in replaces a GPU, and --device {name} is none; leave one of them out",
        )
        for name, kind in KINDS.items()
        if not kind.is_gpu
    ),
    ("sizes", "model", "--sizes chooses a GPT-2, and --model names your own model; leave one of them out"),
    ("dtype", "model", "--dtype is for GPT-2, and your model has its own; leave --dtype out, or convert with --cast"),
    *((name, "sharded", "{} is for loads by one process; leave out {} or --sharded") for name in _OF_ONE_PROCESS),
    (
        "cache=cold",
        "sharded",
        "--cache cold: the ranks of a machine share its page cache; leave out --cache or --sharded",
    ),
    ("cache=cold", "plan", "--cache cold: a plan reads no file; leave out --cache or --plan"),
    (
        "find_minimum",
        "plan",
        "--find-minimum: a plan loads nothing; leave out --plan, or read the plan's column reserved",
    ),
    *(
        (
            *(name, "versus"),
            "{} is for one run, and --versus makes many; leave one of them out",
        )
        for name in _OF_ONE_RUN
    ),
    *(
        (f"{name}=off", "versus", "{}: --versus needs a threshold; give a percentage, such as 0% for any change")
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
            raise ValueError(message.replace("{}", _as_typed(name)))
    for name, beside, needed, message in BESIDE:
        if is_there(name) and is_there(beside) and not is_there(needed):
            raise ValueError(message.replace("{}", _as_typed(name)))
    for name, others, message in NEEDS:
        if is_there(name) and not any(map(is_there, others)):
            raise ValueError(message.replace("{}", _as_typed(name)))
    if is_there("require_comparison") and is_there("memory_compare_fail=off") and is_there("time_compare_fail=off"):
        raise ValueError(
            "--require-comparison: both thresholds are off; give --memory-compare-fail or "
            "--time-compare-fail a percentage"
        )


def _as_typed(name: str) -> str:
    return f"--{name.replace('_', '-')}"
