"""The page of a run: everything that was recorded, as one file for a browser, light or dark, wide or narrow."""

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bench.history.change_points import change_points
from bench.history.fingerprint import in_a_line
from bench.history.run_files import write_whole
from bench.history.runs import Key, Run
from bench.record.field import format_figure, title
from bench.record.record import FIELDS
from bench.report.budget_marks import TOO_BIG
from bench.report.conformance import summary
from bench.report.page.answer import answer
from bench.report.page.charts.alive_chart import MARKS, alive_figures
from bench.report.page.charts.figure import Chart
from bench.report.page.charts.frontier import FAILED, KINDS, frontier_figures
from bench.report.page.charts.history_chart import MOST_RUNS, history_figures
from bench.report.page.charts.timelines import SERIES, timelines
from bench.report.page.exceptions import exceptions, heading
from bench.report.page.grid import grid
from bench.report.page.libraries import bundle
from bench.report.page.pivot import pivots
from bench.report.peers import peer_lines
from bench.report.recorded import Recorded
from bench.report.rows import Row, stand_ins
from bench.report.run_verdict import verdict
from bench.report.table import above, cells, repeated
from model.byte_sizes import short_size

ASSETS = Path(__file__).parent / "assets"
NAME = "index.html"

# Charts that are seen at once; more would be a wall.
MOST_SCATTERS, MOST_TIMELINES, MOST_ALIVE, MOST_HISTORIES = 8, 9, 1, 6


@dataclass(frozen=True)
class ChartSection:
    """Charts of one kind. The first `most` are seen at once, and the others when someone opens them.

    `absent` is what the section says without charts; empty: then there is no section.
    """

    name: str
    heading: str
    about: str
    figures: Sequence[Chart]
    most: int
    absent: str = ""


class TableLine(NamedTuple):
    """A row of the table: its cells, shown and as they are sorted, its record as JSON, and its name."""

    cells: list[tuple[str, str]]
    record: str
    name: str


def write_page(recorded: Recorded, runs: Sequence[Run], folder: Path, cache: Path, name: str = NAME) -> Path:
    """Write the page of a run into a folder, which is made if it is not there; `runs` are those before it and itself.

    Raises `OSError` where it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with bundle(cache) as script:
        context = _context(recorded, runs)
        environment = Environment(
            loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        page = environment.get_template("page.html.jinja").render(context | {"charts_script": script()})
    write_whole(folder / name, page.encode())
    return folder / name


def _context(recorded: Recorded, runs: Sequence[Run]) -> dict[str, Any]:
    run, table = recorded.run, recorded.rows
    columns, *lines = cells(table, whole=True)
    return {
        "run": run,
        "machine": in_a_line(run.machine),
        "models": _models(recorded),
        "verdict": verdict(recorded),
        "answer": answer(recorded),
        "exceptions": (found := exceptions(table)),
        "repeated": repeated(table),
        "exceptions_heading": heading(found) if found else "",
        "scales": above(table),
        "of_ranks": any(row.key.parallelism for row in table),
        "pivots": pivots(table),
        "columns": columns,
        "groups": list(_groups(table, lines)),
        "notes": peer_lines(table),
        "changes": list(_changes(recorded)),
        "sections": {one.name: one for one in _sections(recorded, runs) if one.figures or one.absent},
        "series": [(one.name, one.colour, ",".join(map(str, one.dash))) for one in SERIES],
        "marks": MARKS,
        "kinds": _kinds(table),
        "grid": grid(recorded.cells),
        "conformance": list(summary(recorded.cells)),
        "fingerprint": list(_machine(run)),
        "raw": base64.b64encode(recorded.content).decode(),
        "style": (ASSETS / "page.css").read_text(encoding="utf-8"),
        "page_script": (ASSETS / "page.js").read_text(encoding="utf-8"),
        "sort_script": (ASSETS / "sortable.min.js").read_text(encoding="utf-8")
        + (ASSETS / "sortable.a11y.min.js").read_text(encoding="utf-8"),
        "base64": lambda text: base64.b64encode(text.encode()).decode(),
    }


def _models(recorded: Recorded) -> str:
    """Return what the run loaded, such as `GPT-2 small, xl`."""
    own = any(row.record.model for row in recorded.rows)
    return f"{'' if own else 'GPT-2 '}{', '.join(recorded.sizes)}" if recorded.sizes else "weights"


def _kinds(table: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Return the kinds of points with their shapes and colours, without those that no load of a run can have."""
    there = {FAILED: any(row.has_failed for row in table), TOO_BIG: not all(row.fits for row in table)}
    return [(name, *look) for name, look in KINDS.items() if there.get(name, True)]


def _sections(recorded: Recorded, runs: Sequence[Run]) -> Iterator[ChartSection]:
    sizes, table = recorded.sizes, recorded.rows
    of_rank_0 = " Of many ranks, rank 0 is shown." if any(row.key.parallelism for row in table) else ""
    seconds = " The GPU is a stand-in: seconds are not those of a GPU." if stand_ins(table) else ""
    yield ChartSection(
        "frontier",
        "Time and memory",
        "Lower and farther to the left is better. Strategies on the dashed line are the frontier: no other one is "
        "better in both.",
        [figure for size in sizes for figure in frontier_figures(table, size)],
        MOST_SCATTERS,
    )
    yield ChartSection(
        "timelines",
        "Memory over time",
        "One load each, in a process of its own with meters, so it is slower than a timed load. All charts of a model "
        f"have the same axes. A thin line is the bound that theory predicts.{of_rank_0}{seconds}",
        [figure for size in sizes for figure in timelines(recorded.metered(size))],
        MOST_TIMELINES,
    )
    yield ChartSection(
        "alive",
        "Memory alive at the peak",
        "Each bar is the memory that one line of code asked for and that was alive at the peak. A bar begins where the "
        f"one above it ends.{of_rank_0}",
        [figure for size in sizes for figure in alive_figures(recorded.metered(size), size)],
        MOST_ALIVE,
    )
    shown_runs = [run for run in runs if any(key in run.records for key in _loads(recorded.run))][-MOST_RUNS:]
    points, _ = change_points(shown_runs)
    yield ChartSection(
        "history",
        "History",
        "Figures of these loads of this model in all recorded runs. A large ring marks a change point. A line ends "
        "where the next run was on another machine.",
        [figure for size in sizes for figure in history_figures(shown_runs, points, recorded.run, size)],
        MOST_HISTORIES,
        "No earlier run measured these loads of this model." if _loads(recorded.run) else "",
    )


def _loads(run: Run) -> list[Key]:
    """Return the loads of a run: what the machine can do at best is of no model."""
    return [key for key, record in run.records.items() if record.strategy]


def _groups(table: Sequence[Row], lines: Sequence[list[str]]) -> Iterator[tuple[str, list[TableLine]]]:
    """Yield the rows of the table; those of several numbers of ranks apart, each with a title."""
    shown = list(_rows(table, lines))
    if not pivots(table):
        yield "", shown
        return
    divisions = [(row.size, row.key.ranks) for row in table]
    for size, ranks in dict.fromkeys(divisions):
        own = [line for line, division in zip(shown, divisions, strict=True) if division == (size, ranks)]
        yield f"{size} on {ranks:,} ranks: {len(own)} loads with every figure", own


def _rows(table: Sequence[Row], lines: Sequence[list[str]]) -> Iterator[TableLine]:
    for row, line in zip(table, lines, strict=True):
        record = {name: value for name, value in row.record.measured().items() if not FIELDS[name].drawn}
        timed = {"timed_on": row.timed_on, "timed_ownership": row.timed_ownership}
        record |= {name: value for name, value in timed.items() if value is not None}
        raw = json.dumps(record | {"problems": list(map(str, row.problems))}, indent=1)
        yield TableLine([(cell, _sortable(cell)) for cell in line], raw, row.key.title)


def _sortable(cell: str) -> str:
    """Return the text that a browser sorts a cell by: what was not measured comes last."""
    return "" if cell == "-" else cell.removesuffix("x").replace(",", "")


def _changes(recorded: Recorded) -> Iterator[list[str]]:
    for change in recorded.changes:
        figure = change.figure or ""
        values = (format_figure(figure, change.before), format_figure(figure, change.after)) if figure else ("", "")
        yield [change.key.title, title(figure) if figure else "the benchmark", *values, change.percent, change.replaces]


def _machine(run: Run) -> Iterator[tuple[str, str]]:
    """Yield what is known of the machine."""
    for name, value in run.machine.items():
        amounts = value if isinstance(value, list) else [value]
        is_bytes = name.endswith("_bytes") and all(isinstance(one, int) for one in amounts)
        text = ", ".join(map(short_size, amounts)) if is_bytes else _plain(value)
        if text:
            yield name.removesuffix("_bytes").replace("_", " "), text


def _plain(value: Any) -> str:
    """Return a value as text; empty if there is none."""
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_raw', '')} {text}" for name, one in value.items() if (text := _plain(one)))
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
