"""Parts of the README that are made from recorded runs: between two comments, of which the first names the runs."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.history.fingerprint import in_a_line
from bench.history.storage import write_whole
from bench.report.recorded import Recorded


@dataclass(frozen=True)
class Marked:
    """A part that its comments call `what`, and the `lines` that some runs make of it.

    What wants a README that has this part raises `ValueError` where there is none.
    """

    what: str
    lines: Callable[[Sequence[Recorded]], Iterable[str]]

    @property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(rf"<!-- {self.what} (?P<runs>[^>]+) -->\n.*?<!-- end of {self.what} -->", re.DOTALL)

    def names(self, readme: str) -> list[str]:
        """The runs that a README shows in it, by the names of their files without `.json`; none without such a part."""
        match = self._pattern.search(readme)
        return match["runs"].split() if match else []

    def part(self, runs: Sequence[Recorded]) -> str:
        """It with its comments, and which runs it is from."""
        names = " ".join(run.run.name for run in runs)
        days = " and ".join(dict.fromkeys(run.run.moment[:10] for run in runs))
        numbers = ", ".join(run.run.number for run in runs)
        source = f"Recorded in {numbers} of {days}; {in_a_line(runs[0].run.machine)}."
        return "\n".join([f"<!-- {self.what} {names} -->", *self.lines(runs), source, f"<!-- end of {self.what} -->"])

    def put(self, readme: str, runs: Sequence[Recorded]) -> str:
        """A README that has it from these runs."""
        if not self._pattern.search(readme):
            comments = f"`<!-- {self.what} NAME ... -->` and `<!-- end of {self.what} -->`"
            raise ValueError(f"the README has no part between {comments}")
        return self._pattern.sub(lambda _: self.part(runs), readme)

    def write(self, runs: Sequence[Recorded], root: Path) -> None:
        """Put it into the README of a folder."""
        readme = root / "README.md"
        write_whole(readme, self.put(readme.read_text(encoding="utf-8"), runs).encode())
