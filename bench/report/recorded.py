"""A recorded run, read from its file for its page and for documents."""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.conformance.judge import CellStatus
from bench.conformance.properties import PROPERTIES
from bench.conformance.sweep import Cell
from bench.history.runs import Change, Key, Run, run_of
from bench.history.schema import FIELD_KINDS, compared
from bench.record.kinds import COUNT, FLAG, NUMBER, POSITIVE, TEXT, each, empty_or, fields, one_of, require
from bench.record.record import Record
from bench.record.record_file import Unreadable, content_of, json_of
from bench.record.row_key import RowKey
from bench.report.redact import Folders, without_folders
from bench.report.rows import CaseResult, Problem, Row, Status, rows
from model.printable import printable

# What is shown of a run beside what later runs look at. Peaks are shown as multiples of `state_bytes`.
_MEASURED = fields({"size": TEXT, "state_bytes": POSITIVE, "largest_tensor_bytes": NUMBER}, FIELD_KINDS)
# What ended before anything was measured has an empty record.
_PROBLEM = fields({"strategy": TEXT, "size": TEXT, "verdict": TEXT, "record": empty_or(_MEASURED)})
_CELL = fields(
    {"strategy": TEXT, "property": TEXT, "outcome": one_of([str(one) for one in CellStatus]), "examples": COUNT},
    {"example": TEXT, "why": TEXT, "checks": each(TEXT), "named": FLAG, "is_own": FLAG},
)
_SHOWN = fields(
    {
        "benchmarks": each(fields({"extra_info": _MEASURED})),
        "problems": each(_PROBLEM),
        "conformance": each(_CELL),
        "advice": each(TEXT),
    }
)


@dataclass(frozen=True)
class Recorded:
    """`content` is what is in the file; `changes` are its figures that are worse than in the runs before.

    `failed` names the tests that failed, `complaints` says what else failed the run. `advice` are the lines of the
    advice for its memory budget; none without one.
    """

    run: Run
    content: bytes
    results: tuple[CaseResult, ...]
    cells: tuple[Cell, ...]
    changes: tuple[Change, ...]
    failed: tuple[str, ...]
    complaints: tuple[str, ...]
    advice: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        """True if someone accepted these changes with the run."""
        return bool(self.run.accepted)

    @cached_property
    def rows(self) -> list[Row]:
        return rows(self.results)

    @property
    def sizes(self) -> list[str]:
        return list(dict.fromkeys(result.key.size for result in self.results))

    def metered(self, size: str) -> list[CaseResult]:
        """Return the loads of one size whose memory was measured, one a strategy.

        What failed only for having grown is among the benchmarks, too: the last that is said of it counts.
        """
        found = {
            result.key: result
            for result in self.results
            if result.key.size == size and result.record.host_total_peak_bytes is not None
        }
        return sorted(found.values(), key=lambda result: result.key.division)


def recorded(file: Path) -> Recorded:
    """Read a run. Raises `Unreadable` where that is none, or is damaged."""
    content = content_of(file)
    data = json_of(content)
    run = run_of(file, compared(data))
    ours = [bench for bench in data["benchmarks"] if "schema" in bench["extra_info"]]
    shown = {name: data.get(name, []) for name in ("problems", "conformance", "advice")} | {"benchmarks": ours}
    require(_SHOWN, shown)
    history = data.get("history", {})
    return Recorded(
        run=run,
        content=content,
        results=tuple(_results(shown)),
        cells=tuple(_cell(cell) for cell in shown["conformance"]),
        changes=tuple(_changes(history)),
        failed=tuple(history.get("failed", ())),
        complaints=tuple(history.get("complaints", ())),
        advice=tuple(shown["advice"]),
    )


# `RowKey.name` of loads by many processes, and how that of a roofline begins.
_DIVIDED = re.compile(r"(\S+) (\S+) x([0-9]{1,9})")
_ROOFLINE = "limit: "


def problems(results: Iterable[CaseResult], folders: Folders) -> list[dict[str, Any]]:
    """Write the problems of a run for its file: pages show them, and later runs are not compared with them."""
    return [
        {
            "strategy": result.key.name,
            "size": result.key.size,
            "verdict": without_folders(str(result.problem), folders),
            "record": result.record.as_json() if result.record.size else {},
        }
        for result in results
        if result.problem
    ]


def _results(data: Mapping[str, Any]) -> Iterator[CaseResult]:
    """Read the benchmarks, which are right, then the problems: rows merge them by strategy and size."""
    for bench in data["benchmarks"]:
        record = Record.read(bench["extra_info"])
        yield CaseResult(record.row_key, record)
    for problem in data["problems"]:
        key = row_key(problem["strategy"], problem["size"])
        yield CaseResult(key, Record.read(problem["record"]), _problem(problem["verdict"]))


def row_key(name: str, size: str) -> RowKey:
    """Read the name of a row, as `problems` writes it."""
    if match := _DIVIDED.fullmatch(name):
        return RowKey(match[1], size, match[2], int(match[3]))
    return RowKey(name.removeprefix(_ROOFLINE), size, roofline=name.startswith(_ROOFLINE))


def _problem(verdict: str) -> Problem | None:
    """Read a problem, as `problems` writes it."""
    for status in (Status.REFUSED, Status.SKIPPED):
        if verdict.startswith(prefix := f"{status}: "):
            return Problem(status, verdict.removeprefix(prefix))
    return None if verdict == Status.OK else Problem(Status.FAILED, verdict)


def _cell(cell: Mapping[str, Any]) -> Cell:
    if cell["property"] not in PROPERTIES:
        raise Unreadable(f"is of another version of this suite: there is no property '{printable(cell['property'])}'")
    known = {field.name: cell[field.name] for field in dataclasses.fields(Cell) if field.name in cell}
    return Cell(**known | {"outcome": CellStatus(cell["outcome"]), "checks": tuple(cell.get("checks", ()))})


def _changes(history: Mapping[str, Any]) -> Iterator[Change]:
    for change in history.get("changes", ()):
        before, after = change.get("before"), change.get("after")
        yield Change(Key(*change["key"]), change["figure"], before, after, change.get("replaces", ""))
