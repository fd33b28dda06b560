"""Lines about slow-downs that a comparison could not have detected."""

from collections.abc import Sequence

from bench.history.findings import Unseen
from bench.record.field import title
from bench.record.record import SECONDS

# The heading reads as a sentence, and each row ends it.
HEADING = ("a slow-down below", *(title(figure.name) for figure in SECONDS), "could not be seen here")
UNSEEN_FIGURES = tuple(range(1, 1 + len(SECONDS)))


def unseen_cells(unseen: Sequence[Unseen]) -> list[list[str]]:
    """A row a benchmark: the percentage below which a slow-down of each time is hidden, and how many runs hide it."""
    rows = []
    for key in dict.fromkeys(one.key for one in unseen):
        here = {one.figure: one for one in unseen if one.key == key}
        # Rounded down: all below what is said is hidden.
        shares = [f"{int(100 * here[f.name].below):,} %" if f.name in here else "" for f in SECONDS]
        runs = " and ".join(str(count) for count in sorted({one.runs for one in here.values()}))
        rows.append([key.title, *shares, f"spread of {runs} runs"])
    return [list(HEADING), *rows] if rows else []
