"""All sections of a run's report, in a terminal and in the summary of a CI job."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.conformance.sweep import Cell
from bench.history.comparison import Comparison
from bench.history.runs import Run
from bench.meters.budget import Budget
from bench.report.advice.advice import Advice
from bench.report.alive import explanation
from bench.report.budget_marks import with_budget
from bench.report.comparison_section import (
    RemarkKind,
    comparison_lines,
    comparison_markdown,
    comparison_title,
    quiet_line,
    remarks,
)
from bench.report.conformance import conformance_lines
from bench.report.history_section import history_lines, history_markdown
from bench.report.peers import version_lines
from bench.report.rows import CaseResult, rows
from bench.report.table import markdown, terminal_lines
from bench.report.text_table import wrapped
from bench.report.versus_section import versus_lines, versus_markdown
from bench.versus.side_comparison import SideComparison

# Of a page that wraps by itself, and of a block of code on it.
JOB_PAGE_COLUMNS, CODE_COLUMNS = 1000, 120


@dataclass(frozen=True)
class RunResults:
    """Results of a run, and the options that select what is reported of them.

    `title` and `notes` describe the measurements, `stand_in` is the memory of the stand-in for a GPU that they were
    taken on. `earlier_runs` were recorded before this run, which is in the file `recorded`. `comparison` holds this run
    against them, and is reported as a whole if it was `compared` on request. `history` is what `--history` shows, of
    the user's model alone if it has a name in `history_of`; `passed_over` has the files that are no runs.
    `advice_file` has the code of the advice. `budget` is the memory that was given. `interrupted` says what is
    missing of a run that was interrupted. None: there is no such thing.
    """

    title: str
    outcomes: Sequence[CaseResult]
    cells: Sequence[Cell]
    notes: Sequence[str] = ()
    explain: bool = False
    whole_conformance: bool = False
    stand_in: str | None = None
    earlier_runs: Sequence[Run] = ()
    recorded: Path | None = None
    comparison: Comparison | None = None
    compared: bool = False
    history: Sequence[Run] | None = None
    history_of: str = ""
    passed_over: Sequence[str] = ()
    versus: SideComparison | None = None
    advice: Advice | None = None
    advice_file: Path | None = None
    budget: Budget | None = None
    interrupted: str = ""


def sections(results: RunResults, width: int) -> Iterator[tuple[str, list[str]]]:
    """Yield the sections of a terminal of `width` columns: a title, and lines."""
    outcomes, comparison = results.outcomes, results.comparison
    if results.cells:
        yield "conformance", conformance_lines(results.cells, width, whole=results.whole_conformance)
    if table := with_budget(rows(outcomes), results.budget):
        explained = [line for outcome in outcomes for line in explanation(outcome)] if results.explain else []
        yield f"weight loading: {results.title}", [*explained, *results.notes, *terminal_lines(table, width)]
        if changed := version_lines(table, results.earlier_runs):
            yield "other versions", changed
    if lines := _advice(results):
        yield "advice", wrapped(lines, width)
    if results.interrupted:
        yield "interrupted", wrapped([results.interrupted], width)
    if comparison and results.compared:
        yield comparison_title(comparison), comparison_lines(comparison, results.recorded, width)
    elif comparison and (line := quiet_line(comparison)):
        yield "not compared", [line]
    if results.versus:
        yield f"versus{_where(results)}", versus_lines(results.versus, width)
    if results.history is not None:
        yield "history", history_lines(results.history, results.passed_over, width, results.history_of)


def _where(results: RunResults) -> str:
    return f" on a stand-in for a GPU ({results.stand_in})" if results.stand_in else ""


def _advice(results: RunResults) -> list[str]:
    return results.advice.lines(str(results.advice_file or "")) if results.advice else []


def job_page(results: RunResults) -> Iterator[str]:
    """Yield the same in Markdown, for `$GITHUB_STEP_SUMMARY`."""
    if table := with_budget(rows(results.outcomes), results.budget):
        yield markdown(table)
        yield from (f"- {line}\n" for line in version_lines(table, results.earlier_runs))
    if lines := _advice(results):
        yield "\n".join(["```text", *wrapped(lines, CODE_COLUMNS), "```", ""])
    if results.interrupted:
        yield f"{results.interrupted}\n"
    if results.comparison and results.compared:
        yield comparison_markdown(results.comparison, results.recorded)
    if results.cells:
        yield from (f"{line}\n" for line in conformance_lines(results.cells, JOB_PAGE_COLUMNS, whole=True))
    if results.versus:
        yield f"### Versus{_where(results)}\n\n{versus_markdown(results.versus)}"
    if results.history is not None:
        yield history_markdown(results.history, results.passed_over, results.history_of)


def not_compared(results: RunResults) -> list[str]:
    """Return a line for what could not be held against history, though someone asked for it."""
    if not results.comparison or not results.compared:
        return []
    found = remarks(results.comparison, results.recorded)
    return [str(remark) for remark in found if remark.kind == RemarkKind.NOT_COMPARED]
