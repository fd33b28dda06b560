"""A recorded run as its page and the README show it: all of it is read from one file."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.conformance.judge import Outcome as CellOutcome
from bench.conformance.properties import PROPERTIES
from bench.conformance.sweep import Cell
from bench.history.record import row_name
from bench.history.runs import Change, Key, Run, Unreadable, run_of, telling_damage
from bench.report.folders import Folders, without_folders
from bench.report.rows import Outcome, Row, rows, team


@dataclass(frozen=True)
class Recorded:
    """`content` is what is in the file; `changes` are its figures that are worse than in the runs before.

    `failed` names the tests that failed, `complaints` says what else failed the run.
    """

    run: Run
    content: bytes
    outcomes: tuple[Outcome, ...]
    cells: tuple[Cell, ...]
    changes: tuple[Change, ...]
    failed: tuple[str, ...]
    complaints: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        """Whether someone accepted these changes with the run."""
        return bool(self.run.accepted)

    @cached_property
    def rows(self) -> list[Row]:
        return rows(self.outcomes)

    @property
    def sizes(self) -> list[str]:
        return list(dict.fromkeys(outcome.size for outcome in self.outcomes))

    def metered(self, size: str) -> list[Outcome]:
        """The loads of one size whose memory was measured, one a strategy.

        What failed only for having grown is among the benchmarks, too: the last that is said of it counts.
        """
        found = {
            outcome.strategy: outcome
            for outcome in self.outcomes
            if outcome.size == size and outcome.record.get("host_total_peak_bytes") is not None
        }
        return sorted(found.values(), key=lambda outcome: team(outcome.strategy))


def recorded(file: Path) -> Recorded:
    """Read a run. Raises `Unreadable` where that is none, or is damaged."""
    with telling_damage():
        content = file.read_bytes()
        data = json.loads(content)
        run = run_of(file, data)
        return Recorded(
            run=run,
            content=content,
            outcomes=tuple(_outcomes(data)),
            cells=tuple(_cell(cell) for cell in data.get("conformance", ())),
            changes=tuple(_changes(data.get("history", {}))),
            failed=tuple(data.get("history", {}).get("failed", ())),
            complaints=tuple(data.get("history", {}).get("complaints", ())),
        )


def problems(outcomes: Iterable[Outcome], folders: Folders) -> list[dict[str, Any]]:
    """What is to be recorded of benchmarks that failed or were skipped: no history is made of it, but it is shown."""
    return [
        {
            "strategy": outcome.strategy,
            "size": outcome.size,
            "verdict": without_folders(outcome.verdict, folders),
            "record": outcome.record,
        }
        for outcome in outcomes
        if outcome.verdict != "ok"
    ]


def _outcomes(data: Mapping[str, Any]) -> Iterator[Outcome]:
    """What was measured and is right, then what is not: rows merge them by strategy and size."""
    for bench in data["benchmarks"]:
        record = bench["extra_info"]
        if "schema" in record:
            yield Outcome(row_name(record), record["size"], "ok", record)
    for problem in data.get("problems", ()):
        record, verdict = problem["record"], problem["verdict"]
        if not isinstance(verdict, str):
            raise Unreadable(f"is damaged: what was said of {problem['strategy']} is {verdict!r}")
        # Peaks are shown as multiples of it; what ended before anything was measured has an empty record.
        if record and not (isinstance(state := record["state_bytes"], int) and state > 0):
            raise Unreadable(f"is damaged: state_bytes of {problem['strategy']} is {state!r}")
        yield Outcome(problem["strategy"], problem["size"], verdict, record)


def _cell(cell: Mapping[str, Any]) -> Cell:
    if cell["property"] not in PROPERTIES:
        raise Unreadable(f"is of another version of this suite: there is no property {cell['property']!r}")
    return Cell(**{**cell, "outcome": CellOutcome(cell["outcome"]), "checks": tuple(cell["checks"])})


def _changes(history: Mapping[str, Any]) -> Iterator[Change]:
    for change in history.get("changes", ()):
        yield Change(**{**change, "key": Key(*change["key"])})
