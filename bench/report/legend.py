"""The line below a table that explains those of its headings that do not explain themselves."""

from collections.abc import Collection, Iterator, Sequence

from bench.meters import recorded_kind
from bench.record.formats import in_three_digits
from bench.report.budget_marks import MARK, needs_its_process_too, reserves_too_much
from bench.report.rows import Row
from bench.report.text_table import wrapped
from model.byte_sizes import GB

# Left out where it would make a second line: the heading says nearly as much.
_OUTPUT = "output s: until the first output"


def legend(table: Sequence[Row], cells: Sequence[Sequence[str]], width: int) -> list[str]:
    """Return what explains the headings and marks of `cells`, in lines of `width` columns; none if nothing has to be.

    It is one line if that is possible.
    """
    shown = set(cells[0]) if cells else set()
    marked = any(cell.startswith(MARK) for row in cells[1:] for cell in row)
    parts = [*_of_memory(table, shown), *(_of_marks(table) if marked else []), *_of_speed(table)]
    whole = [*parts, *([_OUTPUT] if "output s" in shown else [])]
    line = "; ".join(whole)
    return wrapped([line if len(line) <= width or not parts else "; ".join(parts)], width) if line else []


def _of_memory(table: Sequence[Row], shown: Collection[str]) -> Iterator[str]:
    places = [place for place in ("GPU", "RAM") if any(heading.startswith(f"{place} ") for heading in shown)]
    if "GPU" in places and any(not recorded_kind(row.record.device).has_values for row in table):
        yield "GPU: simulated"
    if any(row.key.parallelism for row in table) and places:
        yield f"{', '.join(places)}: the rank that takes most"
        yield f"{'node, mapped' if any(one.startswith('mapped') for one in shown) else 'node'}: all ranks of a node"
    if "read" in shown:
        yield "read: by all ranks, x model"


def _of_marks(table: Sequence[Row]) -> Iterator[str]:
    """Yield what a mark says, and why it may stand before a figure that is less than the budget."""
    yield "!: does not fit"
    too_big = [row.record for row in table if row.record.fits is False]
    if any(reserves_too_much(record) for record in too_big):
        yield "PyTorch reserves more than GPU"
    if any(needs_its_process_too(record) for record in too_big):
        yield "the process itself takes RAM too"


def _of_speed(table: Sequence[Row]) -> Iterator[str]:
    """Yield the rooflines, which are the `max` of the heading `of max`."""
    several = len({row.size for row in table}) > 1
    rates: dict[str, list[str]] = {}
    for row in table:
        if row.key.roofline and row.record.bytes_per_second:
            rate = in_three_digits(row.record.bytes_per_second / GB)
            rates.setdefault(row.key.strategy, []).append(f"{rate} ({row.size})" if several else rate)
    if rates:
        kinds = ", ".join(f"{kind} {', '.join(found)}" for kind, found in rates.items())
        yield f"max: this machine's {kinds} GB/s"
