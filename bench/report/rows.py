"""Rows of a run's table: one for each strategy and size."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import NamedTuple

from bench.record.record import Record
from bench.record.row_key import RowKey
from model.byte_sizes import fine_size

# More names are for the table.
MOST_NAMES = 6

# Where a model is asked nothing, for nobody said what.
UNASKED = "; without an example, its first output is when every weight was read once"


class Status(StrEnum):
    """The end of a benchmark, the better one first, in the word of the column `verdict`.

    Refused: the strategy cannot load this model, and says so. Skipped: something was missing.
    """

    OK = "ok"
    REFUSED = "refused"
    SKIPPED = "skipped"
    FAILED = "FAILED"


class Problem(NamedTuple):
    """A status other than `OK`, and its reason, in one line or more."""

    status: Status
    reason: str

    def __str__(self) -> str:
        return self.reason if self.status == Status.FAILED else f"{self.status}: {self.reason}"

    @classmethod
    def of_skip(cls, message: str) -> "Problem":
        """Make the problem of a skipped test from its message, which begins with `refused: ` where a strategy did."""
        reason = message.removeprefix(f"{Status.REFUSED}: ")
        return cls(Status.SKIPPED if reason == message else Status.REFUSED, reason)


@dataclass(frozen=True)
class CaseResult:
    """The record of one benchmark, for the row of `key`; `problem` is None if nothing is wrong with it."""

    key: RowKey
    record: Record = field(default_factory=Record)
    problem: Problem | None = None


@dataclass(frozen=True)
class Row:
    """One strategy at one size in a run: its records merged, its problems listed.

    `timed_load` is the record of its timed load: the weights may end elsewhere there, on another device.
    """

    key: RowKey
    record: Record
    problems: tuple[Problem, ...] = ()
    timed_load: Record | None = None

    @property
    def name(self) -> str:
        return self.key.name

    @property
    def size(self) -> str:
        return self.key.size

    @property
    def seconds(self) -> float:
        """Seconds until the first logits; infinity where they were not measured."""
        return self.record.first_logits_seconds or inf

    @property
    def timed_on(self) -> str | None:
        """The device of its timed load."""
        return self.timed_load.device if self.timed_load else None

    @property
    def timed_ownership(self) -> str | None:
        """The place where the weights end in its timed load, as `Record.ownership`."""
        return self.timed_load.ownership if self.timed_load else None

    @property
    def status(self) -> Status:
        """The worst status of any of the row's benchmarks."""
        return max((problem.status for problem in self.problems), key=list(Status).index, default=Status.OK)

    @property
    def has_failed(self) -> bool:
        return self.status == Status.FAILED

    @property
    def was_refused(self) -> bool:
        return any(problem.status == Status.REFUSED for problem in self.problems)

    @property
    def was_skipped(self) -> bool:
        """True if a benchmark was skipped or refused, and none failed."""
        return self.status in (Status.SKIPPED, Status.REFUSED)

    @property
    def fits(self) -> bool:
        """False if the strategy was tried with a memory budget that it needs more than."""
        return self.record.fits is not False


def rows(results: Iterable[CaseResult]) -> list[Row]:
    """Return one row a strategy and size, in the order in which they were measured; rooflines end those of their size.

    Loads by many processes stand beside those by as many that divide the model alike.
    """
    merged: dict[RowKey, Row] = {}
    for result in results:
        key = result.key
        before = merged.get(key) or _unmeasured(key)
        problems = (result.problem,) if result.problem else ()
        measured, timed, timed_load = result.record.measured(), {}, before.timed_load
        if result.record.first_logits_seconds:
            timed_load = result.record
            # What a meter does to a load shows in its faults.
            timed = {name: measured[name] for name in ("minor_faults", "major_faults") if name in measured}
            # Bounds are of peaks, and those may be of a load to another device.
            measured = {name: value for name, value in measured.items() if not name.endswith("_bound_ratio")}
        # Memory comes first, and what it says of the device is what the row is about, wherever times were taken.
        record = Record.read(measured | before.record.measured() | timed)
        merged[key] = Row(key, record, tuple(dict.fromkeys(before.problems + problems)), timed_load)
    sizes = list(dict.fromkeys(key.size for key in merged))
    return sorted(merged.values(), key=lambda row: (sizes.index(row.size), row.key.roofline, *row.key.division))


def _unmeasured(key: RowKey) -> Row:
    """Make a row of which only the key is known."""
    row = Row(key, Record())
    if key.parallelism:
        row.record.parallelism, row.record.ranks = key.parallelism, key.ranks
    return row


def coverage(table: Iterable[Row]) -> list[str]:
    """Return how many strategies work with each model, a line a size in which one was refused or skipped."""
    sizes: dict[str, list[Row]] = {}
    for row in table:
        if not row.key.roofline:
            sizes.setdefault(row.size, []).append(row)
    return [_coverage(size, loads) for size, loads in sizes.items() if any(row.was_skipped for row in loads)]


def _coverage(size: str, loads: Sequence[Row]) -> str:
    counts = Counter(row.status for row in loads)
    right = [row.name for row in loads if row.status == Status.OK]
    sharded = any(row.key.parallelism for row in loads)
    # What was skipped for want of memory, or of a library, may well work.
    work = "were measured" if counts[Status.SKIPPED] == len(loads) - len(right) else "work"
    named = f": {listed(right)}" if right and not sharded else ""
    rest = ", ".join(f"{counts[status]} {status}" for status in Status if status != Status.OK and counts[status])
    return f"{len(right)} of {len(loads)} {'loads' if sharded else 'strategies'} {work} with {size}{named}; {rest}"


def listed(names: Sequence[str]) -> str:
    """Write the first names of a list, and how many more there are."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def scale_bytes(record: Record, figure: str) -> int:
    """Return the bytes that a peak is shown as a multiple of: S, or S/N on the device of a rank that holds a share."""
    share: int | None = record.share_bytes
    state: int = record.state_bytes
    return share if share and figure.startswith("device_") else state


def peak_ratio(record: Record, figure: str) -> float | None:
    """Return a peak as a multiple of `scale_bytes`; None if it was not measured. Records have multiples of S."""
    recorded: float | None = record.value(figure)
    if recorded is None or not record.share_bytes:
        return recorded
    return recorded * record.state_bytes / scale_bytes(record, figure)


def stand_ins(table: Iterable[Row]) -> list[str]:
    """Return a line for each stand-in for a GPU."""
    found = dict.fromkeys(memory for row in table if (memory := row.record.stand_in))
    return [
        f"stand-in for a GPU ({memory}): bytes are of PyTorch's CUDA allocator, and no times are shown"
        for memory in found
    ]


def _in_checkpoint(record: Record) -> str:
    """Explain C, the bytes in the checkpoint, where weights were cast."""
    count = record.checkpoint_bytes
    return f", C = {fine_size(count)} in the checkpoint" if record.cast and count is not None else ""


def scales(table: list[Row]) -> list[str]:
    """Explain S and L of the bounds, and C of loads that cast, a line a size."""
    # Of a roofline nobody says what its loads are asked.
    loads_last = sorted(table, key=lambda row: not row.key.roofline)
    records = {row.size: row.record for row in loads_last if row.record.state_bytes}
    return [
        f"{size}: model S = {fine_size(record.state_bytes)} ({record.state_bytes:,} bytes), largest tensor "
        f"L = {fine_size(record.largest_tensor_bytes)}{_in_checkpoint(record)}"
        f"{UNASKED if record.first_use == 'weights' else ''}"
        for size, record in records.items()
    ]
