"""Sections of documents that are generated from recorded runs."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.history.fingerprint import in_a_line
from bench.history.run_files import write_whole
from bench.report.recorded import Recorded


@dataclass(frozen=True)
class RecordedSection:
    """A section of `document` between `<!-- NAME RUN ... -->` and `<!-- end of NAME -->`.

    `document` is a path from the root of the checkout, and `lines` renders the section's lines. `replaced` and `write`
    raise `ValueError` if the document has no such section.
    """

    name: str
    document: str
    lines: Callable[[Sequence[Recorded]], Iterable[str]]

    @property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(rf"<!-- {self.name} (?P<runs>[^>]+) -->\n.*?<!-- end of {self.name} -->", re.DOTALL)

    def runs(self, text: str) -> list[str]:
        """Read which runs a document shows: the names of their files without `.json`; empty without the section."""
        match = self._pattern.search(text)
        return match["runs"].split() if match else []

    def rendered(self, runs: Sequence[Recorded]) -> str:
        """Render the section of these runs, with its comments and its source line."""
        names = " ".join(run.run.name for run in runs)
        days = " and ".join(dict.fromkeys(run.run.moment[:10] for run in runs))
        word = "Run" if len(runs) == 1 else "Runs"
        numbers = ", ".join(run.run.number for run in runs)
        machines = "; ".join(dict.fromkeys(in_a_line(run.run.machine) for run in runs))
        source = f"{word} {numbers} of {days}: {machines}."
        return "\n".join([f"<!-- {self.name} {names} -->", *self.lines(runs), source, f"<!-- end of {self.name} -->"])

    def replaced(self, text: str, runs: Sequence[Recorded]) -> str:
        """Return a document's text with the section of these runs."""
        if not self._pattern.search(text):
            comments = f"`<!-- {self.name} NAME ... -->` and `<!-- end of {self.name} -->`"
            raise ValueError(f"{self.document} has no section between {comments}")
        return self._pattern.sub(lambda _: self.rendered(runs), text)

    def write(self, runs: Sequence[Recorded], root: Path) -> None:
        """Write the section into the document of a checkout."""
        document = root / self.document
        write_whole(document, self.replaced(document.read_text(encoding="utf-8"), runs).encode())
