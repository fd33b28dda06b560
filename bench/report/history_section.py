"""The report of `--history`: change points of all recorded runs."""

from collections.abc import Sequence

from bench.history.change_points import ChangePoint, change_points
from bench.history.runs import Run
from bench.history.schema import PASSED
from bench.record.field import format_figure, title
from bench.record.formats import percent
from bench.report.text_table import fitting, markdown_table

HEADING = ("run", "date", "commit", "torch", "benchmark", "figure", "before", "since", "change")
FIGURES = (6, 7, 8)
# Where the terminal is narrow, what the file says goes first.
SPARE = (1, 6, 7, 3, 2)


def history_lines(runs: Sequence[Run], passed_over: Sequence[str], width: int, whose: str = "") -> list[str]:
    """Render the change points of all runs, oldest first, in a table of `width` columns if that is possible.

    `whose`: the model of which they are all, if others are left out.
    """
    points, series = change_points(runs)
    steps = [point for point in points if not point.crept]
    table = fitting(_cells(steps), FIGURES, SPARE, width) if steps else []
    return [*_counts(runs, passed_over, whose), *table, *_crept(points), _conclusion(points, series)]


def history_markdown(runs: Sequence[Run], passed_over: Sequence[str], whose: str = "") -> str:
    """Render the same as Markdown, for `$GITHUB_STEP_SUMMARY`."""
    points, series = change_points(runs)
    steps = [point for point in points if not point.crept]
    table = markdown_table(_cells(steps), FIGURES) if steps else []
    listed = [f"- {line}" for line in (*_counts(runs, passed_over, whose), *_crept(points))]
    return "\n".join(["### Change points", "", *listed, "", *table, "", _conclusion(points, series), "", ""])


def _counts(runs: Sequence[Run], passed_over: Sequence[str], whose: str) -> list[str]:
    of_model = f" of {whose}" if whose else ""
    if not runs:
        return [*(f"PASSED OVER: {line}" for line in passed_over), f"No run{of_model} is recorded"]
    outcomes = [run.outcome for run in runs]
    counts = ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in dict.fromkeys((PASSED, *outcomes)))
    return [
        *(f"PASSED OVER: {line}" for line in passed_over),
        f"{len(runs)} runs{of_model} from {runs[0].moment[:10]} to {runs[-1].moment[:10]}: {counts}",
    ]


def _cells(points: Sequence[ChangePoint]) -> list[list[str]]:
    rows = []
    for point in points:
        run, change = point.run, point.change
        assert change.figure
        marks = [
            *([] if run.outcome == PASSED else [run.outcome]),
            *(["stand-in"] if run.machine.get("stand_in") else []),
        ]
        rows.append(
            [
                f"{run.number} ({', '.join(marks)})" if marks else run.number,
                run.moment[:10],
                run.short_commit,
                str(run.machine.get("torch")),
                change.key.whole_title,
                title(change.figure).removesuffix(" peak"),
                format_figure(change.figure, change.before),
                format_figure(change.figure, change.after),
                change.percent,
            ]
        )
    return [list(HEADING), *rows]


def _crept(points: Sequence[ChangePoint]) -> list[str]:
    """Render a line for every stretch of runs in which a figure changed a little each time."""
    lines = []
    for point in points:
        change, first = point.change, point.since
        if first and change.figure and change.before and change.after:
            way = "up" if change.after > change.before else "down"
            much = percent(abs(change.after / change.before - 1), ".0")
            what = f"{change.key.whole_title}: {title(change.figure).removesuffix(' peak')} crept {way} {much}"
            lines.append(f"{what} over {point.crept} runs ({first.number}..{point.run.number})")
    return lines


def _conclusion(points: Sequence[ChangePoint], series: int) -> str:
    moved = len({(point.change.key, point.change.figure) for point in points})
    return f"{moved} of {series} series moved"
