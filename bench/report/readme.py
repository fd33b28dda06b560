"""The part of the README that comes from a recorded run: the table and its picture."""

import re

from bench.history.fingerprint import in_a_line
from bench.report.recorded import Recorded
from bench.report.table import terminal_lines

# A line of the README, rendered.
COLUMNS = 88

_PART = re.compile(r"<!-- run (?P<run>\S+) -->\n.*?<!-- end of run -->", re.DOTALL)


def shown_run(readme: str) -> str:
    """The run that a README shows, by the name of its file without `.json`. Raises `ValueError` if it shows none."""
    if match := _PART.search(readme):
        return match["run"]
    raise ValueError("the README has no part between `<!-- run NAME -->` and `<!-- end of run -->`")


def with_run(readme: str, recorded: Recorded, picture: str) -> str:
    """A README that shows this run, and a picture: its place beside the README. Raises `ValueError` as `shown_run`."""
    shown_run(readme)
    return _PART.sub(lambda _: _part(recorded, picture), readme)


def caption(recorded: Recorded) -> str:
    """What the picture is of."""
    sizes = ", ".join(recorded.sizes)
    return f"Memory while GPT-2 {sizes} is loaded, by each strategy: run {recorded.run.number}"


def _part(recorded: Recorded, picture: str) -> str:
    lines = "\n".join(terminal_lines(recorded.rows, COLUMNS))
    return f"""<!-- run {recorded.run.name} -->
```text
{lines}
```

![{caption(recorded)}]({picture})

That is run {recorded.run.number} of {recorded.run.moment[:10]}, {in_a_line(recorded.run.machine)}.
<!-- end of run -->"""
