"""The file of a recorded run: which fields are used of it, and the kinds of their values."""

from typing import Any

from bench.record.kinds import COUNT, FLAG, NUMBER, PLAIN, TEXT, each, fields, in_order, nullable, one_of, require
from bench.record.record import FIELDS, SCHEMA
from bench.record.record_file import Unreadable, json_of

# Of a run; its records have their own.
RUN_SCHEMA = 1

PASSED, FAILED, INTERRUPTED = "passed", "failed", "interrupted"

# The first runs were recorded without a history of their own, and only if they passed.
FIRST_HISTORY = {"schema": RUN_SCHEMA, "outcome": PASSED, "accepted": False}

# What pytest-benchmark's table needs of a run that it shows.
_STATS = ("min", "max", "mean", "stddev", "median", "iqr", "ops", "rounds", "iterations")
_SHOWN_STATS = fields(dict.fromkeys(_STATS, NUMBER) | {"outliers": TEXT})

# Of a history, such as that of one benchmark: its name, dtype, cache, whether it is planned, and what is the user's.
_KEY = in_order((TEXT, TEXT, TEXT, FLAG, *[nullable(TEXT)] * 5), 4)
_CHANGE = fields(
    {"key": _KEY, "figure": nullable(TEXT)}, {"before": nullable(NUMBER), "after": nullable(NUMBER), "replaces": TEXT}
)

# Of every field of a record, and of those that a record has to have.
FIELD_KINDS = {name: field.kind for name, field in FIELDS.items()}
RECORD = fields({name: FIELD_KINDS[name] for name in ("schema", "dtype", "cache")}, FIELD_KINDS)

# What later runs look at of a record.
LASTING = tuple(name for name, field in FIELDS.items() if field.lasts)

HISTORY = fields(
    {"schema": COUNT, "outcome": one_of((PASSED, FAILED, INTERRUPTED)), "accepted": FLAG},
    {"failed": each(TEXT), "complaints": each(TEXT), "changes": each(_CHANGE), "busy": each(_CHANGE)},
)

MACHINE = fields(
    {},
    {
        "memory_bytes": nullable(NUMBER),
        "gpus": nullable(each(TEXT)),
        "gpu_memory_bytes": nullable(each(NUMBER)),
        "stand_in": nullable(TEXT),
        "cpu": nullable(fields({}, {"brand_raw": TEXT}, PLAIN)),
    },
    PLAIN,
)

# What later runs look at, see `compared`.
RUN = fields(
    {
        "machine_info": MACHINE,
        "commit_info": fields({"id": TEXT}),
        "datetime": TEXT,
        "benchmarks": each(fields({"fullname": TEXT, "extra_info": RECORD})),
        "history": HISTORY,
    }
)

_BENCHMARK = fields({"fullname": TEXT, "extra_info": fields({})}, {"stats": fields(dict.fromkeys(_STATS, NUMBER))})
_OUTLINE = fields({"benchmarks": each(_BENCHMARK)}, {"history": fields({})})


def compared(data: Any) -> dict[str, Any]:
    """Return what later runs look at of a run's file: a `RUN`, if it is one. Raises `Unreadable`.

    Left out are benchmarks that are not the suite's, and fields that are null, unknown, or of no use later.
    """
    require(_OUTLINE, data)
    benchmarks, history = data["benchmarks"], data.get("history", FIRST_HISTORY)
    ours = [bench for bench in benchmarks if "schema" in bench["extra_info"]]
    if benchmarks and not ours:
        raise Unreadable("is no run of this suite: no benchmark has a record")
    schemas = (bench["extra_info"]["schema"] for bench in ours)
    if is_later(history.get("schema"), RUN_SCHEMA) or any(is_later(schema, SCHEMA) for schema in schemas):
        raise Unreadable("is of a later version of this suite: update the suite to read it")
    return {
        **{name: data[name] for name in ("machine_info", "commit_info", "datetime") if name in data},
        "history": history,
        "benchmarks": [{"fullname": bench["fullname"], "extra_info": lasting(bench["extra_info"])} for bench in ours],
    }


def baseline(content: bytes) -> dict[str, Any]:
    """Return what pytest-benchmark's table shows of a run's file beside others. Raises `Unreadable`."""
    data = json_of(content)
    require(_OUTLINE, data)
    return {
        "benchmarks": [
            bench | {"stats": {name: bench["stats"][name] for name in (*_STATS, "outliers")}}
            for bench in data["benchmarks"]
            if "stats" in bench and not _SHOWN_STATS(bench["stats"])
            if "schema" not in bench["extra_info"] or not RECORD(bench["extra_info"])
        ]
    }


def lasting(record: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a record that later runs look at, less what is null."""
    return {name: record[name] for name in LASTING if record.get(name) is not None}


def is_later(schema: Any, known: int) -> bool:
    """Return whether a file says that a later version of the suite wrote it."""
    return type(schema) is int and schema > known
