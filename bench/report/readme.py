"""What the checkout shows of a recorded run: the table and its picture in the README, and the page."""

import re
from pathlib import Path

from bench.history.fingerprint import in_a_line
from bench.history.storage import write_whole
from bench.report.recorded import Recorded
from bench.report.table import terminal_lines

# A line of the README, rendered.
COLUMNS = 88

# Committed beside the README. No run writes them: those write `results/report/`, which git ignores.
PICTURE = "results/picture.svg"
PAGE = "results/main-job.html"

_PART = re.compile(r"<!-- run (?P<run>\S+) -->\n.*?<!-- end of run -->", re.DOTALL)


def shown_run(readme: str) -> str:
    """The run that a README shows, by the name of its file without `.json`. Raises `ValueError` if it shows none."""
    if match := _PART.search(readme):
        return match["run"]
    raise ValueError("the README has no part between `<!-- run NAME -->` and `<!-- end of run -->`")


def with_run(readme: str, recorded: Recorded) -> str:
    """A README that shows this run. Raises `ValueError` as `shown_run` does."""
    shown_run(readme)
    return _PART.sub(lambda _: _part(recorded), readme)


def write_readme(run: Recorded, root: Path) -> None:
    """Put a run into the README of a folder, and its picture beside it.

    Raises `ValueError` if the run has no timelines, or the README no place for it, and then writes nothing.
    """
    from bench.report.page.charts.timelines import timelines  # noqa: PLC0415 - of an extra
    from bench.report.page.picture import picture  # noqa: PLC0415 - of an extra

    figures = [figure for size in run.sizes for figure in timelines(run.metered(size))]
    if not figures:
        raise ValueError(f"--readme: run {run.run.number} has no timelines to make a picture of")
    readme = root / "README.md"
    text = with_run(readme.read_text(encoding="utf-8"), run)
    write_whole(root / PICTURE, picture(figures, caption(run)).encode())
    write_whole(readme, text.encode())


def caption(recorded: Recorded) -> str:
    """What the picture is of."""
    sizes = ", ".join(recorded.sizes)
    return f"Memory while GPT-2 {sizes} is loaded, by each strategy: run {recorded.run.number}"


def _part(recorded: Recorded) -> str:
    lines = "\n".join(terminal_lines(recorded.rows, COLUMNS))
    return f"""<!-- run {recorded.run.name} -->
```text
{lines}
```

![{caption(recorded)}]({PICTURE})

That is run {recorded.run.number} of {recorded.run.moment[:10]}, {in_a_line(recorded.run.machine)}.
<!-- end of run -->"""
