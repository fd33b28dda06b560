"""Which strategy a user should take, as far as one run tells."""

from collections.abc import Sequence
from typing import Any

from bench.report.rows import Row, fits, peak_ratio, team


def best(table: list[Row]) -> str | None:
    """One line: which strategy takes least memory where the weights end, and among equals is fastest.

    Said of the largest size that was measured; None where no row has both memory and time.
    """
    whole = [row for row in table if fits(row) and not row.problems and None not in _choice(row)]
    if not whole:
        return None
    largest = max(row.record["state_bytes"] for row in whole)
    candidates = [row for row in whole if row.record["state_bytes"] == largest]
    if any(row.division for row in candidates):
        return f"Best here: {'; '.join(_of_many(candidates))}"
    winner = min(candidates, key=_rank)
    line = f"Best here: {_praise(winner, _where(winner))}"
    if _mapped(winner) and (owned := [row for row in candidates if not _mapped(row)]):
        line += f"; owning its weights: {_praise(min(owned, key=_rank))}"
    return line


def _of_many(candidates: Sequence[Row]) -> list[str]:
    """The best for as many processes as there can be, one each way to divide the model: that is chosen before."""
    most, _ = max(team(row.strategy) for row in candidates)
    teams = dict.fromkeys(team(row.strategy) for row in candidates if team(row.strategy)[0] == most)
    winners = [min((row for row in candidates if team(row.strategy) == one), key=_rank) for one in teams]
    return [_praise(winner, _where(winner)) for winner in winners]


def _choice(row: Row) -> tuple[Any, Any]:
    """What a user weighs: the peak where the weights end, as a ratio, and the seconds until first logits."""
    device = peak_ratio(row.record, "device_peak_ratio")
    memory = row.record.get("host_peak_ratio") if device is None else device
    return memory, row.record.get("first_logits_seconds")


def _rank(row: Row) -> tuple[int, float]:
    memory, seconds = _choice(row)
    # Peaks that differ by less than a twentieth of the model are equal to whoever has to choose.
    return round(memory * 20), seconds


def _mapped(row: Row) -> bool:
    return row.record.get("ownership") == "mapped"


def _where(row: Row) -> str:
    if "device_peak_ratio" not in row.record:
        return " private"
    return " of S/N" if row.division else " device"


def _praise(row: Row, what: str = "") -> str:
    memory, seconds = _choice(row)
    elsewhere = row.record.get("timed_on") != row.record.get("device")
    where = f" on {row.record['timed_on']}" if elsewhere else ""
    return f"{row.strategy} ({memory:.2f}x{what}, logits in {seconds:.2f} s{where})"
