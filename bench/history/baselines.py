"""The passing runs before this one, and which of their figures may be compared with its own."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.history.fingerprint import MachineDifference, differences
from bench.history.runs import Key, Run, read_run
from bench.history.schema import PASSED
from bench.record.field import Field
from bench.record.record import Record
from bench.record.record_file import Unreadable


@dataclass(frozen=True)
class Baselines:
    """The passing runs that a run is held against, oldest first, and the machine that it ran on.

    What was worse in one of them than before, and nobody accepted, is left out. `named` are those that someone asked
    for by name: bytes are held against them alone.
    """

    runs: Sequence[Run]
    machine: Mapping[str, Any]
    named: tuple[Run, ...] = ()

    @cached_property
    def _here(self) -> frozenset[Run]:
        return frozenset(run for run in self.runs if not differences(run.machine, self.machine))

    def values(self, key: Key, figure: Field) -> list[tuple[Run, float]]:
        """Return a figure's values in the runs to compare with, from the last one on that accepted it."""
        found: list[tuple[Run, float]] = []
        for run, record in self._records.get(key, ()):
            if not (figure.anywhere or run in self._here):
                continue
            doubtful = (run.doubtful and (key, figure.name) in run.doubtful) or (self.named and not figure.is_seconds)
            if doubtful and run not in self.named:
                continue
            if run.accepted and (key, figure.name) in run.accepted:
                found.clear()
            if (value := record.value(figure.name)) is not None:
                found.append((run, value))
        return found

    @cached_property
    def _records(self) -> dict[Key, list[tuple[Run, Record]]]:
        """The records of all runs that have a benchmark, by its key."""
        found: dict[Key, list[tuple[Run, Record]]] = {}
        for run in self.runs:
            for key, record in run.records.items():
                found.setdefault(key, []).append((run, record))
        return found

    def holds(self, key: Key) -> bool:
        """Return True if any of the runs has this benchmark."""
        return key in self.keys

    def having(self, keys: Collection[Key]) -> list[Run]:
        """Return the runs that have any of these benchmarks."""
        return [run for run in self.named or self.runs if not run.records.keys().isdisjoint(keys)]

    @cached_property
    def keys(self) -> dict[Key, None]:
        """Every benchmark of the runs, those that were recorded first before others."""
        return {key: None for run in self.named or self.runs for key in run.records}

    def elsewhere(self, key: Key) -> list[MachineDifference]:
        """Return how the machine differs from the last that a benchmark ran on; empty if that ran here."""
        ran = [run for run in self.named or self.runs if key in run.records]
        return [] if self._here.intersection(ran) else differences(ran[-1].machine, self.machine)

    def latest_here(self, keys: Sequence[Key]) -> Run | None:
        """Return the last run on this machine that has one of these benchmarks."""
        having = (run for run in reversed(self.runs) if any(key in run.records for key in keys))
        return next((run for run in having if run in self._here), None)

    def recorded(self) -> dict[Key, Run]:
        """Return the last run of every recorded benchmark, less those whose end someone accepted."""
        found: dict[Key, Run] = {}
        for run in self.named or self.runs:
            for key, figure in run.accepted:
                if figure is None:
                    found.pop(key, None)
            found |= dict.fromkeys(run.records, run)
        return found


def passed_baselines(runs: Sequence[Run], machine: Mapping[str, Any]) -> Baselines:
    """Return the runs that passed, as what a run on `machine` is held against."""
    return Baselines([run for run in runs if run.outcome == PASSED], machine)


def named_baselines(name: str, files: Sequence[Path], runs: Sequence[Run], machine: Mapping[str, Any]) -> Baselines:
    """Return the runs of `files`, which `name` means, and those before them.

    Raises `ValueError` with one line if a named run is not there, is damaged, or did not pass.
    """
    passed = [run for run in runs if run.outcome == PASSED]
    try:
        named = tuple(map(read_run, files))
    except Unreadable as error:
        raise ValueError(f"{name} {error}") from None
    if not named or any(run.outcome != PASSED for run in named):
        asked = Path(name).name.removesuffix(".json")
        unfit = [
            run.outcome
            for run in runs
            if run.outcome != PASSED and (asked == run.number or f"{run.name}_".startswith(f"{asked}_"))
        ]
        reason = f"did not pass ({unfit[0]})" if unfit else "is not recorded"
        remedy = f"name one that passed, such as {passed[-1].number}" if passed else "record a run that passes first"
        raise ValueError(f"{name} {reason}; {remedy}")
    last_named = max(named, key=lambda run: run.moment)
    earlier = [run for run in passed if run.moment <= last_named.moment and run.name not in {one.name for one in named}]
    return Baselines((*earlier, *named), machine, named)
