"""A run's records, one row a strategy and size."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from bench.history.record import Record

# How verdicts begin of what was not measured: for want of something, or as the strategy has it.
SKIPPED, REFUSED = "skipped: ", "refused: "

# Where a model is asked nothing, for nobody said what.
UNASKED = "; without an example, its first logits are when every weight was read once"


@dataclass(frozen=True)
class Outcome:
    """What one benchmark measured, and what became of it: `ok`, or why not, in one line or more."""

    strategy: str
    size: str
    verdict: str
    record: Record = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """Everything that a run found out about one strategy at one size: records merged, what went wrong listed."""

    strategy: str
    size: str
    record: Record
    problems: tuple[str, ...]


def rows(outcomes: Iterable[Outcome]) -> list[Row]:
    """One row a strategy and size, in the order in which they were measured; limits end the rows of their size."""
    merged: dict[tuple[str, str], Row] = {}
    for outcome in outcomes:
        key = outcome.strategy, outcome.size
        before = merged.get(key, Row(*key, {}, ()))
        measured = {name: value for name, value in outcome.record.items() if value is not None}
        problems = () if outcome.verdict == "ok" else (outcome.verdict,)
        if measured.get("first_logits_seconds"):
            measured["timed_on"] = measured.get("device")
            # What a meter does to a load shows in its faults.
            timed = {name: measured[name] for name in ("minor_faults", "major_faults") if name in measured}
            # Bounds are of peaks, and those may be of a load to another device.
            measured = {name: value for name, value in measured.items() if not name.endswith("_bound_ratio")}
        else:
            timed = {}
        # Memory comes first, and what it says of the device is what the row is about, wherever times were taken.
        merged[key] = Row(*key, measured | before.record | timed, tuple(dict.fromkeys(before.problems + problems)))
    sizes = list(dict.fromkeys(size for _, size in merged))
    return sorted(merged.values(), key=lambda row: (sizes.index(row.size), _is_limit(row)))


def _is_limit(row: Row) -> bool:
    """Whether it says what the machine can do at best, and not what a strategy does."""
    return "limit" in row.record and "strategy" not in row.record


def best(table: list[Row]) -> str | None:
    """One line: which strategy takes least memory where the weights end, and among equals is fastest.

    Said of the largest size that was measured; None where no row has both memory and time.
    """
    whole = [row for row in table if fits(row) and not row.problems and None not in _choice(row)]
    if not whole:
        return None
    largest = max(row.record["state_bytes"] for row in whole)
    candidates = [row for row in whole if row.record["state_bytes"] == largest]
    winner = min(candidates, key=_rank)
    line = f"Best here: {_praise(winner, ' device' if 'device_peak_ratio' in winner.record else ' private')}"
    if _mapped(winner) and (owned := [row for row in candidates if not _mapped(row)]):
        line += f"; owning its weights: {_praise(min(owned, key=_rank))}"
    return line


def fits(row: Row) -> bool:
    """Whether its strategy is to be had with the memory that there is to be, as far as that was tried."""
    return row.record.get("fits") is not False


def was_skipped(row: Row) -> bool:
    return bool(row.problems) and all(problem.startswith((SKIPPED, REFUSED)) for problem in row.problems)


def _choice(row: Row) -> tuple[Any, Any]:
    """What a user weighs: the peak where the weights end, as a ratio, and the seconds until first logits."""
    memory = row.record.get("device_peak_ratio", row.record.get("host_peak_ratio"))
    return memory, row.record.get("first_logits_seconds")


def _rank(row: Row) -> tuple[int, float]:
    memory, seconds = _choice(row)
    # Peaks that differ by less than a twentieth of the model are equal to whoever has to choose.
    return round(memory * 20), seconds


def _mapped(row: Row) -> bool:
    return row.record.get("ownership") == "mapped"


def _praise(row: Row, what: str = "") -> str:
    memory, seconds = _choice(row)
    elsewhere = row.record.get("timed_on") != row.record.get("device")
    where = f" on {row.record['timed_on']}" if elsewhere else ""
    return f"{row.strategy} ({memory:.2f}x{what}, logits in {seconds:.2f} s{where})"


def scales(table: list[Row]) -> list[str]:
    """What S and L of the bounds are, a line a size."""
    records = {row.size: row.record for row in table if "state_bytes" in row.record}
    return [
        f"{size}: S = {record['state_bytes']:,} bytes of state, L = {record['largest_tensor_bytes']:,} bytes in its "
        f"largest tensor{UNASKED if record.get('first_use') == 'weights' else ''}"
        for size, record in records.items()
    ]
