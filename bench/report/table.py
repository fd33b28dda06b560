"""The table at the end of a run: in a terminal of any width, and as Markdown."""

from collections.abc import Callable

from bench.history.record import Record
from bench.report.rows import GIB, Row, best, scales

# Where a terminal is narrower, the columns marked so are left out.
NARROW = 100


def _gib(name: str) -> Callable[[Record], str | None]:
    return lambda record: None if record.get(name) is None else f"{record[name] / GIB:.2f}"


def _ratio(name: str) -> Callable[[Record], str | None]:
    return lambda record: None if record.get(name) is None else f"{record[name]:.2f}x"


def _ratio_to_state(name: str) -> Callable[[Record], str | None]:
    return lambda record: None if record.get(name) is None else f"{record[name] / record['state_bytes']:.2f}x"


def _number(name: str, scale: float = 1.0) -> Callable[[Record], str | None]:
    return lambda record: None if record.get(name) is None else f"{record[name] * scale:.2f}"


#   heading, shown only in wide terminals, how a record's figure is shown
COLUMNS = (
    ("device GiB", True, _gib("device_requested_peak_bytes")),
    ("device", False, _ratio("device_peak_ratio")),
    ("bound", False, _ratio("device_bound_ratio")),
    ("alloc.", True, _ratio_to_state("device_allocated_peak_bytes")),
    ("private GiB", True, _gib("host_private_peak_bytes")),
    ("private", False, _ratio("host_peak_ratio")),
    ("bound", False, _ratio("host_bound_ratio")),
    ("file", False, _ratio_to_state("host_file_peak_bytes")),
    ("bound", True, _ratio("host_file_bound_ratio")),
    ("load s", False, _number("load_seconds")),
    ("logits s", False, _number("first_logits_seconds")),
    ("GB/s", False, _number("bytes_per_second", 1e-9)),
)


def terminal_lines(table: list[Row], width: int) -> list[str]:
    """The table as lines of at most `width` columns, then what went wrong, then what is best here."""
    cells = _cells(table, wide=width >= NARROW)
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = scales(table)
    for row in cells:
        names = [cell.ljust(space) for cell, space in zip(row[:2], widths, strict=False)]
        figures = [cell.rjust(space) for cell, space in zip(row[2:-1], widths[2:], strict=False)]
        lines.append("  ".join((*names, *figures, row[-1])).rstrip())
    return lines + _problems(table) + _verdict(table)


def markdown(table: list[Row]) -> str:
    """The same as Markdown, for `$GITHUB_STEP_SUMMARY`."""
    heading, *body = _cells(table, wide=True)
    ruler = ["---", "---", *("---:" for _ in heading[2:-1]), "---"]
    lines = ["| " + " | ".join(row) + " |" for row in (heading, ruler, *body)]
    return "\n".join([*scales(table), "", *lines, "", *_problems(table), "", *_verdict(table), ""])


def _cells(table: list[Row], *, wide: bool) -> list[list[str]]:
    """Heading and rows; a column in which no row has a figure is left out."""
    heading, body = ["strategy", "size"], [[row.strategy, row.size] for row in table]
    for name, only_wide, show in COLUMNS:
        shown = [show(row.record) for row in table]
        if any(shown) and (wide or not only_wide):
            heading.append(name)
            for line, figure in zip(body, shown, strict=True):
                line.append(figure or "-")
    for line, row in zip(body, table, strict=True):
        line.append(_word(row))
    return [[*heading, "verdict"], *body]


def _word(row: Row) -> str:
    if not row.problems:
        return "ok"
    return "skipped" if all(problem.startswith("skipped") for problem in row.problems) else "FAILED"


def _problems(table: list[Row]) -> list[str]:
    return [f"{row.strategy}-{row.size}: {problem}" for row in table for problem in row.problems]


def _verdict(table: list[Row]) -> list[str]:
    line = best(table)
    return [line] if line else []
