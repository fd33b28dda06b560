"""Recorded runs, as they are read back from files that may be damaged, or not this suite's at all."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from bench.history.fingerprint import hardware
from bench.history.schema import RUN, compared
from bench.record.formats import percent
from bench.record.kinds import require
from bench.record.record import Record
from bench.record.record_file import content_of, json_of

# Of a change: less is shown with more digits.
LITTLE = 0.001

# `0007_COMMIT_TIME.json`, and `failed-0008_COMMIT_TIME.json`: a name that pytest-benchmark does not look at.
NAME = re.compile(r"(?:(?P<mark>failed|interrupted)-)?(?P<number>\d{4,})_.*\.json", re.DOTALL)
# What moves the cursor of a terminal, or colours it.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Key(NamedTuple):
    """Identity of a benchmark over runs: its name, and what the name does not say.

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
        """Return the key of a benchmark."""
        model = record.model
        return cls(
            *(fullname, record.dtype, record.cache, bool(record.planned)),
            *(model, record.state_digest, record.layout if model else None, record.loader),
            record.cast,
        )

    @property
    def title(self) -> str:
        """The short name, such as `streamed-small-cpu`, and what is unusual about it."""
        cast = f"{self.dtype} cast to {self.cast}" if self.cast else self.dtype
        parts = (cast, "float32"), (self.cache, "warm"), ("planned" if self.planned else "", "")
        return " ".join((self.fullname.partition("[")[2].rstrip("]"), *(now for now, usual in parts if now != usual)))

    @property
    def whole_title(self) -> str:
        """`title` with the user's model, its layout and the loader, for benchmarks of several models."""
        model = [f"of {self.model}", *([f"in {self.layout}"] if self.layout != "torch" else [])] if self.model else []
        return " ".join((self.title, *model, *([f"by {self.loader}"] if self.loader else [])))

    @property
    def test(self) -> str:
        """The test function, such as `test_peak_memory`."""
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
        """The change as in `+1.1 %`."""
        if self.after is None:
            return "gone"
        if not self.before:
            return "from 0"
        change = self.after / self.before - 1
        return percent(change, "+.1" if abs(change) >= LITTLE else "+.3")


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
    def short_commit(self) -> str:
        """The first digits of the commit; empty outside a repository."""
        return "" if self.commit in ("unversioned", "unknown") else self.commit[:7]

    @property
    def name(self) -> str:
        """The name of the file without `.json`."""
        return self.file.stem

    @cached_property
    def hardware(self) -> str:
        """The properties of its machine that stay when software is updated."""
        return hardware(self.machine)

    @property
    def number(self) -> str:
        """The number that `--benchmark-compare` takes."""
        return self.name.partition("_")[0].rpartition("-")[2]


def runs_with(runs: Iterable[Run], wanted: Callable[[Record], bool]) -> list[Run]:
    """Return the runs that have wanted records, without their other records."""
    found = [replace(run, records={key: one for key, one in run.records.items() if wanted(one)}) for run in runs]
    return [run for run in found if run.records]


def read_run(path: Path, folder: Path | None = None) -> Run:
    """Read a file as a run. Raises `Unreadable`: torn, of another suite, or of a later version of this one.

    `folder`: the resolved folder that no link may lead out of; None: the file is one that the user named.
    """
    return run_of(path, compared(json_of(content_of(path, folder))))


def run_of(file: Path, data: Mapping[str, Any]) -> Run:
    """Make a run of what `schema.compared` keeps of its file. Raises `Unreadable`."""
    require(RUN, data)
    history = data["history"]
    changes, busy = (
        frozenset((Key(*change["key"]), change["figure"]) for change in history.get(name, []))
        for name in ("changes", "busy")
    )
    return Run(
        file=file,
        outcome=history["outcome"],
        machine=data["machine_info"],
        commit=data["commit_info"]["id"],
        moment=data["datetime"],
        records={
            Key.of(bench["fullname"], record): record
            for bench in data["benchmarks"]
            for record in [Record.read(bench["extra_info"])]
        },
        accepted=changes if history["accepted"] else frozenset(),
        doubtful=busy if history["accepted"] else changes | busy,
    )
