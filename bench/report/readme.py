"""The recorded run that the README shows: its table, its picture and its page."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.history.run_files import write_whole
from bench.report.recorded import Recorded
from bench.report.recorded_section import RecordedSection
from bench.report.table import terminal_lines

# Of the terminal that most people have.
COLUMNS = 80

# Committed files. A run never writes them: it writes `results/report/`, which git ignores.
PICTURE = "results/picture.svg"
PAGE = "results/main-job.html"


def write_readme(run: Recorded, root: Path) -> None:
    """Write a run's table into the README of a checkout, and its picture into `PICTURE`.

    Raises `ValueError`, and writes nothing, if the run has no timelines or the README has no section for it.
    """
    from bench.report.page.charts.timelines import timelines  # noqa: PLC0415 - of an extra
    from bench.report.page.picture import picture  # noqa: PLC0415 - of an extra

    figures = [figure for size in run.sizes for figure in timelines(run.metered(size))]
    if not figures:
        raise ValueError(f"--readme: run {run.run.number} has no timelines to make a picture of")
    drawn = picture(figures, caption(run))
    MAIN_JOB.write([run], root)
    write_whole(root / PICTURE, drawn.encode())


def caption(recorded: Recorded) -> str:
    """Say what the picture shows."""
    sizes = ", ".join(recorded.sizes)
    return f"Memory while GPT-2 {sizes} is loaded, by each strategy: run {recorded.run.number}"


def _lines(runs: Sequence[Recorded]) -> Iterator[str]:
    for run in runs:
        yield from ("```text", *terminal_lines(run.rows, COLUMNS), "```", "", f"![{caption(run)}]({PICTURE})", "")


MAIN_JOB = RecordedSection("run", "README.md", _lines)
