"""Loads that failed, were refused or skipped, or do not fit: each with its reason, once."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bench.report.budget_marks import TOO_BIG
from bench.report.rows import Row, Status, listed

# What loads with a status are called, failures first.
WORDS = {Status.FAILED: "failed", TOO_BIG: TOO_BIG, Status.REFUSED: "refused", Status.SKIPPED: "skipped"}


class ExceptionLine(NamedTuple):
    """Loads with one status and one reason: their names in one text. `style` is the class of the status."""

    status: str
    style: str
    names: str
    reason: str


def exceptions(table: Sequence[Row]) -> list[ExceptionLine]:
    """Return the reasons, failures first."""
    named: dict[tuple[str, str], dict[str, None]] = {}
    for row in table:
        for why in _reasons(row):
            named.setdefault(why, {})[_name(row, why, table)] = None
    found = sorted(named.items(), key=lambda item: list(WORDS).index(item[0][0]))
    return [
        ExceptionLine(str(status), WORDS[status].replace(" ", "-"), listed(list(names)), reason)
        for (status, reason), names in found
    ]


def heading(found: Sequence[ExceptionLine]) -> str:
    """Return what such loads are called together: `Failed and refused loads`."""
    *others, last = dict.fromkeys(WORDS[line.status] for line in found)
    words = f"{', '.join(others)} and {last}" if others else last
    return f"{words.capitalize()} loads"


def _reasons(row: Row) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a row. A later test of the same load may repeat the first one's words within others."""
    reasons = [(problem.status, problem.reason) for problem in row.problems]
    for number, (status, reason) in enumerate(reasons):
        if not any(other in reason for same, other in reasons[:number] if same == status):
            yield status, reason
    if row.record.fate:
        yield TOO_BIG, row.record.fate


def _name(row: Row, why: tuple[str, str], table: Sequence[Row]) -> str:
    """Return the name of a load; of loads by ranks that of the strategy, if each of its loads has the same reason."""
    alike = [one for one in table if one.key.parallelism and one.key[:2] == row.key[:2]]
    if row.key.parallelism and len(alike) > 1 and all(why in _reasons(one) for one in alike):
        return f"{row.key.strategy}-{row.key.size}"
    return row.key.title
