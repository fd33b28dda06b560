"""Everything that a run has to say, in a terminal and on the page of a CI job."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.conformance.sweep import Cell
from bench.history.runs import Run, runs_with
from bench.plugin.regression import RegressionPlugin
from bench.plugin.settings import Settings
from bench.plugin.versus import Versus
from bench.report.advice import Advice
from bench.report.alive import explanation
from bench.report.comparison import (
    RemarkKind,
    comparison_lines,
    comparison_markdown,
    comparison_title,
    quiet_line,
    remarks,
)
from bench.report.conformance import conformance_lines
from bench.report.history import history_lines, history_markdown
from bench.report.peers import version_lines
from bench.report.rows import CaseResult, rows
from bench.report.table import markdown, terminal_lines
from bench.report.versus import versus_lines, versus_markdown

# Of a page that wraps by itself.
JOB_PAGE_COLUMNS = 1000


@dataclass(frozen=True)
class RunResults:
    """What a run found out: what became of each benchmark, of each cell of the conformance table, and of the rest."""

    chosen: Settings
    gate: RegressionPlugin
    versus: Versus | None
    outcomes: Sequence[CaseResult]
    cells: Sequence[Cell]
    advice: Callable[[], Advice | None] = lambda: None
    # Where its code is, if it is anywhere.
    written: list[Path] = field(default_factory=list)


def sections(found: RunResults, width: int) -> Iterator[tuple[str, list[str]]]:
    """What is said in a terminal of `width` columns, under its titles."""
    chosen, gate, outcomes = found.chosen, found.gate, found.outcomes
    if found.cells:
        yield "conformance", conformance_lines(found.cells, width, whole=chosen.conformance)
    if table := rows(outcomes):
        explained = [line for outcome in outcomes for line in explanation(outcome)] if chosen.explain else []
        yield f"weight loading: {chosen.title}", [*explained, *chosen.notes, *terminal_lines(table, width)]
        if changed := version_lines(table, gate.runs):
            yield "other versions", changed
    if lines := _advice(found):
        yield "advice", lines
    if gate.shown:
        yield comparison_title(gate.shown), comparison_lines(gate.shown, gate.recorded, width)
    elif gate.comparison and (line := quiet_line(gate.comparison)):
        yield "not compared", [line]
    if found.versus and found.versus.result:
        yield f"versus{_where(chosen)}", versus_lines(found.versus.result, width)
    if gate.history is not None:
        runs, whose = _of_model(found, gate.history)
        yield "history", history_lines(runs, gate.passed_over, width, whose)


def _of_model(found: RunResults, runs: list[Run]) -> tuple[list[Run], str]:
    """What of the recorded runs is of the user's model, and its name; all of them where none is given."""
    own = found.chosen.own
    return (runs_with(runs, found.chosen.is_of_model), own.factory.shown) if own else (runs, "")


def _where(chosen: Settings) -> str:
    return f" on a stand-in for a GPU ({chosen.stand_in})" if chosen.stand_in else ""


def _advice(found: RunResults) -> list[str]:
    advice = found.advice()
    return [*advice.lines, *advice.how_to_use(next(iter(found.written), None))] if advice else []


def job_page(found: RunResults) -> Iterator[str]:
    """The same in Markdown, for `$GITHUB_STEP_SUMMARY`."""
    gate = found.gate
    if table := rows(found.outcomes):
        yield markdown(table)
        yield from (f"- {line}\n" for line in version_lines(table, gate.runs))
    if lines := _advice(found):
        yield "\n".join(["```text", *lines, "```", ""])
    if gate.shown:
        yield comparison_markdown(gate.shown, gate.recorded)
    if found.cells:
        yield from (f"{line}\n" for line in conformance_lines(found.cells, JOB_PAGE_COLUMNS, whole=True))
    if found.versus and found.versus.result:
        yield f"### Versus{_where(found.chosen)}\n\n{versus_markdown(found.versus.result)}"
    if gate.history is not None:
        runs, whose = _of_model(found, gate.history)
        yield history_markdown(runs, gate.passed_over, whose)


def not_compared(found: RunResults) -> list[str]:
    """Return a line for what could not be held against history, though someone asked for it."""
    shown = found.gate.shown
    found_out = remarks(shown, found.gate.recorded) if shown else ()
    return [str(remark) for remark in found_out if remark.kind == RemarkKind.NOT_COMPARED]
