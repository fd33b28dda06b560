"""Recorded runs, as they are read back from files that may be damaged, or not this suite's at all."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from bench.history.figures import FIGURES, LIMIT
from bench.history.record import SCHEMA, Record

# Of a run; its records have their own.
RUN_SCHEMA = 1

PASSED, FAILED, INTERRUPTED = "passed", "failed", "interrupted"

# What pytest-benchmark's table needs of a run that it shows.
_STATS = ("min", "max", "mean", "stddev", "median", "iqr", "ops", "rounds", "iterations")

# Of a change: less is shown with more digits.
LITTLE = 0.001

# `0007_COMMIT_TIME.json`, and `failed-0008_COMMIT_TIME.json`: a name that pytest-benchmark does not look at.
NAME = re.compile(r"(?:(?P<mark>failed|interrupted)-)?(?P<number>\d{4,})_.*\.json")


class Unreadable(Exception):
    """A file that is not a run of this suite, or not one that this version can read. `str()` is why, in a line."""


class Key(NamedTuple):
    """What makes two records those of the same benchmark: its name, and what the name does not say.

    `model` and `loader` are functions of the user's, `file.py:function` without folders, `state_digest` is that of the
    model's state dict, and `layout` that of the checkpoint that it is loaded from. All are None for what is the
    suite's, since there the name says it, and in keys that were recorded before they were part of one. `cast` is the
    dtype that weights end in, where it is not that of the checkpoint.
    """

    fullname: str
    dtype: str
    cache: str
    planned: bool
    model: str | None = None
    state_digest: str | None = None
    layout: str | None = None
    loader: str | None = None
    cast: str | None = None

    @classmethod
    def of(cls, fullname: str, record: Record) -> "Key":
        """The key of a benchmark and its record."""
        model = record.get("model")
        return cls(
            *(fullname, record["dtype"], record["cache"], bool(record.get("planned"))),
            *(model, record.get("state_digest"), record["layout"] if model else None, record.get("loader")),
            record.get("cast"),
        )

    @property
    def title(self) -> str:
        """What people call it: `streamed-small-cpu`, and what is unusual about it."""
        cast = f"{self.dtype} cast to {self.cast}" if self.cast else self.dtype
        said = (cast, "float32"), (self.cache, "warm"), ("planned" if self.planned else "", "")
        return " ".join((self.fullname.partition("[")[2].rstrip("]"), *(now for now, usual in said if now != usual)))

    @property
    def whole_title(self) -> str:
        """The same where there are benchmarks of several models: with the user's own, its layout, and the loader."""
        model = [f"of {self.model}", *([f"in {self.layout}"] if self.layout != "torch" else [])] if self.model else []
        return " ".join((self.title, *model, *([f"by {self.loader}"] if self.loader else [])))

    @property
    def test(self) -> str:
        """Which promise it measures: `test_peak_memory`."""
        return self.fullname.partition("::")[2].partition("[")[0]


@dataclass(frozen=True)
class Change:
    """One figure of a benchmark that is no longer what it was: a growth, a gain, or a benchmark that is gone.

    `replaces` names the run that it was held against. A `figure` of None: the benchmark as a whole.
    """

    key: Key
    figure: str | None
    before: float | None
    after: float | None
    replaces: str

    @property
    def percent(self) -> str:
        """By how much it changed, as in `+1.1 %`."""
        if self.after is None:
            return "gone"
        if not self.before:
            return "from 0"
        change = self.after / self.before - 1
        return f"{change:+.{1 if abs(change) >= LITTLE else 3}%}".replace("%", " %")


@dataclass(frozen=True, eq=False)
class Run:
    """One recorded run.

    `accepted` are the benchmarks and figures whose change for the worse someone accepted with it; `doubtful` those
    that nobody did, or that could not be judged.
    """

    file: Path
    outcome: str
    machine: Mapping[str, Any]
    commit: str
    moment: str
    records: Mapping[Key, Record] = field(repr=False)
    accepted: frozenset[tuple[Key, str | None]] = frozenset()
    doubtful: frozenset[tuple[Key, str | None]] = frozenset()

    @property
    def name(self) -> str:
        """What a file that replaces it calls it."""
        return self.file.stem

    @property
    def number(self) -> str:
        """What `--benchmark-compare` calls it."""
        return self.name.partition("_")[0].rpartition("-")[2]


def runs_with(runs: Iterable[Run], wanted: Callable[[Record], bool]) -> list[Run]:
    """The runs that have wanted records, with no others."""
    found = [replace(run, records={key: one for key, one in run.records.items() if wanted(one)}) for run in runs]
    return [run for run in found if run.records]


def read_run(path: Path) -> Run:
    """Read a file as a run. Raises `Unreadable`: torn, of another suite, or of a later version of this one."""
    with telling_damage():
        return run_of(path, json.loads(path.read_bytes()))


@contextmanager
def telling_damage() -> Iterator[None]:
    """Raises `Unreadable` for what happens in this block to whoever reads a file that is torn, or of another kind."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise Unreadable(f"cannot be read: {' '.join(str(error).split())}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise Unreadable(f"is no run of this suite: {type(error).__name__} {error}") from None


def run_of(file: Path, data: Mapping[str, Any]) -> Run:
    """A run from its JSON. Raises `Unreadable`, or what happens where a file is of another kind altogether."""
    # The first runs were recorded without a history of their own, and only if they passed.
    history = data.get("history", {"schema": RUN_SCHEMA, "outcome": PASSED, "accepted": False})
    records = {bench["fullname"]: bench["extra_info"] for bench in data["benchmarks"]}
    ours = {fullname: record for fullname, record in records.items() if "schema" in record}
    if records and not ours:
        raise Unreadable("is no run of this suite: no benchmark has a record")
    if history["schema"] > RUN_SCHEMA or any(record["schema"] > SCHEMA for record in ours.values()):
        raise Unreadable("is of a later version of this suite: update the suite to read it")
    changes, busy = (
        frozenset((Key(*change["key"]), change["figure"]) for change in history.get(name, []))
        for name in ("changes", "busy")
    )
    for bench in data["benchmarks"]:
        if bench["fullname"] in ours:
            _require_sound(bench)
    if history["outcome"] not in (PASSED, FAILED, INTERRUPTED):
        raise Unreadable(f"is no run of this suite: it {history['outcome']}")
    return Run(
        file=file,
        outcome=history["outcome"],
        machine=dict(data["machine_info"].items()),
        commit=data["commit_info"]["id"][:],
        moment=data["datetime"][:],
        records={Key.of(fullname, record): _compared(record) for fullname, record in ours.items()},
        accepted=changes if history["accepted"] else frozenset(),
        doubtful=busy if history["accepted"] else changes | busy,
    )


def _compared(record: Record) -> Record:
    """A record without what takes most of its room, and is looked at in the run that it belongs to only."""
    return {name: value for name, value in record.items() if name not in ("timeline", "alive_at_peak")}


def _require_sound(bench: Mapping[str, Any]) -> None:
    """Raise `Unreadable` if a benchmark has figures that are none: someone, or something, edited the file."""
    if not isinstance(bench["fullname"], str):
        raise Unreadable(f"is damaged: {bench['fullname']!r} is no name of a benchmark")
    figures = {figure.name: bench["extra_info"].get(figure.name) for figure in (*FIGURES, LIMIT)}
    for name, value in (figures | {name: bench["stats"].get(name) for name in _STATS}).items():
        number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value >= 0
        # No load takes no time, and no machine none: of both the logarithm is looked at.
        nothing = value == 0 and name.endswith(("_seconds", "_per_second"))
        if (not number and not (value is None and name in figures)) or nothing:
            raise Unreadable(f"is damaged: {name} of {bench['fullname']} is {value!r}")
