"""A run's records, one row a strategy and size."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from bench.record.record import Record

# How verdicts begin of what was not measured: for want of something, or as the strategy has it.
SKIPPED, REFUSED = "skipped: ", "refused: "
# How the name of a row begins that is of no strategy, but of the machine.
LIMIT = "limit: "

# More names are for the table.
MOST_NAMES = 6

# Where a model is asked nothing, for nobody said what.
UNASKED = "; without an example, its first logits are when every weight was read once"


@dataclass(frozen=True)
class CaseResult:
    """What one benchmark measured, and what became of it: `ok`, or why not, in one line or more."""

    strategy: str
    size: str
    verdict: str
    record: Record = field(default_factory=Record)


class ShardingKey(NamedTuple):
    """Of loads by many processes: by which strategy, how they divide the model, and how many they are."""

    strategy: str
    parallelism: str
    ranks: int


# As `row_name` has it.
_DIVISION = re.compile(r"(\S+) (\S+) x([0-9]{1,9})")


def division(name: str) -> ShardingKey | None:
    """What the name of a row tells, whether anything was measured or not; None: one process loads by itself."""
    match = _DIVISION.fullmatch(name)
    return ShardingKey(match[1], match[2], int(match[3])) if match else None


def team(name: str) -> tuple[int, str]:
    """By how many processes, and how they divide the model: those of an equal one are compared."""
    found = division(name)
    return (found.ranks, found.parallelism) if found else (1, "")


@dataclass(frozen=True)
class Row:
    """Everything that a run found out about one strategy at one size: records merged, what went wrong listed."""

    strategy: str
    size: str
    record: Record
    problems: tuple[str, ...]
    # The record of its timed load: weights may end elsewhere there, on another device.
    timed_load: Record | None = None

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
        """Where the weights end in its timed load, as `Record.ownership`."""
        return self.timed_load.ownership if self.timed_load else None

    @property
    def division(self) -> ShardingKey | None:
        return division(self.strategy)

    @property
    def strategy_name(self) -> str:
        """The strategy's own, however many load with it."""
        return self.division.strategy if self.division else self.strategy


def rows(outcomes: Iterable[CaseResult]) -> list[Row]:
    """One row a strategy and size, in the order in which they were measured; limits end the rows of their size.

    Loads by many processes stand beside those by as many that divide the model alike.
    """
    merged: dict[tuple[str, str], Row] = {}
    for outcome in outcomes:
        key = outcome.strategy, outcome.size
        before = merged.get(key) or _unmeasured(*key)
        problems = () if outcome.verdict == "ok" else (outcome.verdict,)
        measured, timed, timed_load = outcome.record.measured(), {}, before.timed_load
        if outcome.record.first_logits_seconds:
            timed_load = outcome.record
            # What a meter does to a load shows in its faults.
            timed = {name: measured[name] for name in ("minor_faults", "major_faults") if name in measured}
            # Bounds are of peaks, and those may be of a load to another device.
            measured = {name: value for name, value in measured.items() if not name.endswith("_bound_ratio")}
        # Memory comes first, and what it says of the device is what the row is about, wherever times were taken.
        record = Record.read(measured | before.record.measured() | timed)
        merged[key] = Row(*key, record, tuple(dict.fromkeys(before.problems + problems)), timed_load)
    sizes = list(dict.fromkeys(size for _, size in merged))
    return sorted(merged.values(), key=lambda row: (sizes.index(row.size), _is_limit(row), *team(row.strategy)))


def _unmeasured(strategy: str, size: str) -> Row:
    """A row before anything is known of it but its name."""
    row = Row(strategy, size, Record(), ())
    if row.division:
        row.record.parallelism, row.record.ranks = row.division.parallelism, row.division.ranks
    return row


def _is_limit(row: Row) -> bool:
    """Whether it says what the machine can do at best, and not what a strategy does."""
    return row.strategy.startswith(LIMIT)


def fits(row: Row) -> bool:
    """Whether its strategy is to be had with the memory that there is to be, as far as that was tried."""
    return row.record.fits is not False


def verdict_word(row: Row) -> str:
    """Return `ok`, `refused`, `skipped` or `FAILED`: the worst that happened to any of the row's benchmarks."""
    if not row.problems:
        return "ok"
    if has_failed(row):
        return "FAILED"
    return "refused" if all(problem.startswith(REFUSED) for problem in row.problems) else "skipped"


def has_failed(row: Row) -> bool:
    return any(not problem.startswith((SKIPPED, REFUSED)) for problem in row.problems)


def was_refused(row: Row) -> bool:
    return any(problem.startswith(REFUSED) for problem in row.problems)


def was_skipped(row: Row) -> bool:
    """Whether something of it was not measured, and nothing failed."""
    return bool(row.problems) and not has_failed(row)


def coverage(table: Iterable[Row]) -> list[str]:
    """How many strategies work with each model, a line a size in which one was refused or skipped."""
    sizes: dict[str, list[Row]] = {}
    for row in table:
        if not _is_limit(row):
            sizes.setdefault(row.size, []).append(row)
    return [_coverage(size, loads) for size, loads in sizes.items() if any(map(was_skipped, loads))]


def _coverage(size: str, loads: Sequence[Row]) -> str:
    words = Counter(map(verdict_word, loads))
    right = [row.strategy for row in loads if verdict_word(row) == "ok"]
    sharded = any(row.division for row in loads)
    # What was skipped for want of memory, or of a library, may well work.
    work = "were measured" if words["skipped"] == len(loads) - len(right) else "work"
    named = f": {listed(right)}" if right and not sharded else ""
    rest = ", ".join(f"{words[word]} {word}" for word in ("refused", "skipped", "FAILED") if words[word])
    return f"{len(right)} of {len(loads)} {'loads' if sharded else 'strategies'} {work} with {size}{named}; {rest}"


def listed(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def scale_bytes(record: Record, figure: str) -> int:
    """What a peak is a multiple of: S; on the device of one rank of many, of which each holds a share, S/N."""
    share: int | None = record.share_bytes
    state: int = record.state_bytes
    return share if share and figure.startswith("device_") else state


def peak_ratio(record: Record, figure: str) -> float | None:
    """A peak as such a multiple; None where it was not measured. Recorded are multiples of S."""
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
    """What is in the checkpoint, where weights were cast."""
    known = record.cast and record.checkpoint_bytes is not None
    return f", C = {record.checkpoint_bytes:,} bytes in the checkpoint" if known else ""


def scales(table: list[Row]) -> list[str]:
    """What S and L of the bounds are, and C of loads that cast, a line a size."""
    records = {row.size: row.record for row in table if row.record.state_bytes}
    return [
        f"{size}: S = {record.state_bytes:,} bytes of state, L = {record.largest_tensor_bytes:,} bytes in its "
        f"largest tensor{_in_checkpoint(record)}{UNASKED if record.first_use == 'weights' else ''}"
        for size, record in records.items()
    ]
