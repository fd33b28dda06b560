"""The page of a run: everything that was recorded, as one file for a browser, light or dark, wide or narrow."""

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from textwrap import dedent
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bench.history.change_points import change_points
from bench.history.fingerprint import in_a_line
from bench.history.run_files import write_whole
from bench.history.runs import Run
from bench.record.field import format_figure, title
from bench.record.record import FIELDS
from bench.report.conformance import summary
from bench.report.page.charts.alive_chart import alive_figures
from bench.report.page.charts.figure import Chart
from bench.report.page.charts.frontier import frontier_figures
from bench.report.page.charts.history_chart import MOST_RUNS, history_figures
from bench.report.page.charts.timelines import SERIES, timelines
from bench.report.page.grid import grid
from bench.report.page.libraries import bundle
from bench.report.recorded import Recorded
from bench.report.rows import Row, stand_ins
from bench.report.run_verdict import verdict
from bench.report.table import above, cells, notes

ASSETS = Path(__file__).parent / "assets"
NAME = "index.html"


@dataclass(frozen=True)
class ChartSection:
    """Charts of one kind."""

    name: str
    heading: str
    about: str
    figures: Sequence[Chart]


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
    heading, *lines = cells(table, whole=True)
    return {
        "run": run,
        "machine": in_a_line(run.machine),
        "verdict": verdict(recorded),
        "scales": above(table),
        "of_ranks": any(row.key.parallelism for row in table),
        "columns": heading,
        "problems": notes(table),
        "advice": list(advice_parts(recorded.advice)),
        "rows": list(_rows(table, lines)),
        "changes": list(_changes(recorded)),
        "sections": [section for section in _sections(recorded, runs) if section.figures],
        "series": [(one.name, one.colour, ",".join(map(str, one.dash))) for one in SERIES],
        "grid": grid(recorded.cells),
        "conformance": list(summary(recorded.cells)),
        "fingerprint": [(name, _plain(value)) for name, value in run.machine.items()],
        "raw": base64.b64encode(recorded.content).decode(),
        "style": (ASSETS / "page.css").read_text(encoding="utf-8"),
        "sort_script": (ASSETS / "sortable.min.js").read_text(encoding="utf-8")
        + (ASSETS / "sortable.a11y.min.js").read_text(encoding="utf-8"),
        "base64": lambda text: base64.b64encode(text.encode()).decode(),
    }


def advice_parts(lines: Sequence[str]) -> Iterator[tuple[bool, str]]:
    """Yield the lines of an advice, those to be copied, which begin with four blanks, together as a block of code."""
    for is_code, group in groupby(lines, lambda line: line.startswith("    ") or not line):
        if is_code:
            yield True, dedent("\n".join(group))
        else:
            yield from ((False, line) for line in group)


def _sections(recorded: Recorded, runs: Sequence[Run]) -> Iterator[ChartSection]:
    sizes, table = recorded.sizes, recorded.rows
    whose = " Of many ranks, rank 0 is shown." if any(row.key.parallelism for row in table) else ""
    seconds = " The GPU is a stand-in: seconds are not those of a GPU." if stand_ins(table) else ""
    yield ChartSection(
        "frontier",
        "Time and memory",
        "Nearer to the corner is better in both. On the dashed line are strategies that no other one beats in both.",
        [figure for size in sizes for figure in frontier_figures(table, size)],
    )
    yield ChartSection(
        "timelines",
        "Memory while a load runs",
        "One load each, in a process of its own and with meters, so slower than a timed one; the axes of a size are "
        f"equal. A thin line is what theory allows.{whose}{seconds}",
        [figure for size in sizes for figure in timelines(recorded.metered(size))],
    )
    yield ChartSection(
        "alive",
        "Alive at the peaks",
        "Which line of a recipe asked for what was there when most was there. A part without room for its line has its "
        f"number: the data say which one that is.{whose}",
        [figure for size in sizes for figure in alive_figures(recorded.metered(size), size)],
    )
    shown_runs = [run for run in runs if not run.records.keys().isdisjoint(recorded.run.records)][-MOST_RUNS:]
    points, _ = change_points(shown_runs)
    yield ChartSection(
        "history",
        "History",
        "What the same benchmarks took in every run that is recorded; a large ring is where a level changed. "
        "A line ends where the next run was on another machine.",
        [figure for size in sizes for figure in history_figures(shown_runs, points, recorded.run, size)],
    )


def _rows(table: list[Row], lines: list[list[str]]) -> Iterator[tuple[list[tuple[str, str]], str, str]]:
    """Yield the cells of each row, shown and as they are sorted, its record as JSON, and its name."""
    for row, line in zip(table, lines, strict=True):
        record = {name: value for name, value in row.record.measured().items() if not FIELDS[name].drawn}
        timed = {"timed_on": row.timed_on, "timed_ownership": row.timed_ownership}
        record |= {name: value for name, value in timed.items() if value is not None}
        raw = json.dumps(record | {"problems": list(map(str, row.problems))}, indent=1)
        yield [(cell, _sortable(cell)) for cell in line], raw, row.key.title


def _sortable(cell: str) -> str:
    """Return the text that a browser sorts a cell by: what was not measured comes last."""
    return "" if cell == "-" else cell.removesuffix("x").replace(",", "")


def _changes(recorded: Recorded) -> Iterator[list[str]]:
    for change in recorded.changes:
        figure = change.figure or ""
        values = (format_figure(figure, change.before), format_figure(figure, change.after)) if figure else ("", "")
        yield [change.key.title, title(figure) if figure else "the benchmark", *values, change.percent, change.replaces]


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_raw', '')} {_plain(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value in (None, "") else str(value)
