"""What a run came to, in a sentence or two."""

from typing import NamedTuple

from bench.history.runs import INTERRUPTED
from bench.report.recorded import Recorded
from bench.report.rows import Row, best

# More names are for the table.
MOST_NAMES = 6


class Verdict(NamedTuple):
    """The run's outcome, what that means, and which strategy is best, if anything was measured that tells."""

    outcome: str
    sentence: str
    best: str | None


def verdict(recorded: Recorded) -> Verdict:
    """The verdict of a recorded run."""
    run, table = recorded.run, [row for row in recorded.rows if "strategy" in row.record]
    failed = [f"{row.strategy}-{row.size}" for row in table if _has_failed(row)]
    if failed:
        sentence = f"{len(failed)} of {_strategies(len(table))} failed: {_listed(failed)}."
    elif recorded.failed:
        tests = "test" if len(recorded.failed) == 1 else "tests"
        sentence = f"{len(recorded.failed)} {tests} failed: {_listed(recorded.failed)}."
    elif run.outcome == INTERRUPTED:
        sentence = f"Stopped before its end; by then {_strategies(len(table))} had been measured."
    else:
        metered = any("host_total_peak_bytes" in row.record for row in table)
        peaks = ", and every peak is what theory says" if metered else ""
        sentence = f"{_strategies(len(table))} measured: every weight is right{peaks}."
    if recorded.changes:
        figures = "1 figure is" if len(recorded.changes) == 1 else f"{len(recorded.changes)} figures are"
        accepted = ", and accepted" if recorded.accepted else ""
        sentence += f" {figures} worse than in the runs before{accepted}."
    return Verdict(run.outcome, sentence, best(recorded.rows))


def _has_failed(row: Row) -> bool:
    return any(not problem.startswith("skipped") for problem in row.problems)


def _strategies(count: int) -> str:
    return f"{count} strateg{'y' if count == 1 else 'ies'}"


def _listed(names: "list[str] | tuple[str, ...]") -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more
