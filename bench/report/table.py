"""The table at the end of a run: in a terminal of any width, and as Markdown."""

from collections.abc import Callable

from bench.history.record import Record
from bench.meters.budget import shown
from bench.report.aligned import aligned, markdown_table
from bench.report.peers import peer_lines
from bench.report.rows import REFUSED, Row, best, scales, was_skipped

GIB = 2**30


Show = Callable[[Record], str | None]


def _shown(name: str, show: Callable[[Record], str]) -> Show:
    """How a record's figure is shown; None where the record has not measured the one of this name."""
    return lambda record: None if record.get(name) is None else show(record)


def _gib(name: str) -> Show:
    return _shown(name, lambda record: f"{record[name] / GIB:.2f}")


def _ratio(name: str) -> Show:
    return _bound(name, of=name)


def _bound(name: str, of: str) -> Show:
    """A ratio beside the figure that it is for; of a loader of the user's there may be none."""
    return lambda record: None if None in (record.get(name), record.get(of)) else f"{record[name]:.2f}x"


def _ratio_to_state(name: str) -> Show:
    return _shown(name, lambda record: f"{record[name] / record['state_bytes']:.2f}x")


def _amount(name: str) -> Show:
    return _shown(name, lambda record: shown(record[name]))


def _number(name: str) -> Show:
    return _shown(name, lambda record: f"{record[name]:.2f}")


def _three_digits(name: str, scale: float) -> Show:
    def show(record: Record) -> str:
        figure = record[name] * scale
        return next(text for digits in (2, 1, 0) if len(text := f"{figure:.{digits}f}") <= len("0.00") or not digits)

    return _shown(name, show)


def _faults(record: Record) -> str:
    return f"{record['minor_faults'] + record['major_faults']:,}"


#   heading, the same where there is room, how a record's figure is shown, and where the terminal is narrow: the higher,
#   the sooner it is left out
COLUMNS = (
    ("budget", "with the budget", _shown("fits", lambda record: "fits" if record["fits"] else "dies"), 0),
    ("min. dev.", "smallest device", _amount("smallest_device_bytes"), 1),
    ("min. host", "smallest host", _amount("smallest_host_bytes"), 1),
    ("GiB", "device GiB", _gib("device_requested_peak_bytes"), 10),
    ("device", "device", _ratio("device_peak_ratio"), 0),
    ("bound", "device bound", _bound("device_bound_ratio", "device_requested_peak_bytes"), 1),
    ("alloc.", "allocated", _ratio_to_state("device_allocated_peak_bytes"), 9),
    ("reserved", "reserved", _ratio_to_state("device_reserved_peak_bytes"), 8),
    ("GiB", "private GiB", _gib("host_private_peak_bytes"), 11),
    ("private", "private", _ratio("host_peak_ratio"), 0),
    ("bound", "private bound", _bound("host_bound_ratio", "host_private_peak_bytes"), 4),
    ("file", "file-backed", _ratio_to_state("host_file_peak_bytes"), 5),
    ("bound", "file-backed bound", _bound("host_file_bound_ratio", "host_file_peak_bytes"), 12),
    ("load s", "load, s", _number("load_seconds"), 6),
    ("logits s", "first logits, s", _number("first_logits_seconds"), 0),
    ("GB/s", "GB/s", _three_digits("bytes_per_second", 1e-9), 3),
    ("limit", "of the limit", _number("limit_fraction"), 2),
    ("kept", "kept beside the model", _ratio_to_state("retained_bytes"), 13),
    ("again", "kept after a second load", _ratio_to_state("retained_again_bytes"), 13),
    ("faults", "page faults", _shown("minor_faults", _faults), 7),
)
ALL = max(column[3] for column in COLUMNS)


def terminal_lines(table: list[Row], width: int) -> list[str]:
    """The table in `width` columns, if that is possible at all; then what went wrong, and what is best here."""
    most = ALL
    while max(map(len, lines := aligned(shown := cells(table, most), _figures(shown)))) > width and most > 0:
        most -= 1
    return [*scales(table), *lines, *problems(table), *fates(table), *peer_lines(table), *_verdict(table)]


def markdown(table: list[Row]) -> str:
    """The same as Markdown, for `$GITHUB_STEP_SUMMARY`."""
    shown = cells(table)
    lines = markdown_table(shown, _figures(shown))
    below = [*problems(table), *fates(table), *peer_lines(table)]
    return "\n".join([*scales(table), "", *lines, "", *below, "", *_verdict(table), ""])


def cells(table: list[Row], most: int = ALL, *, whole: bool = False) -> list[list[str]]:
    """Heading, in `whole` words or short, and rows.

    Left out are columns in which no row has a figure, and those that go sooner than `most`.
    """
    heading, body = ["strategy", "size"], [[row.strategy, row.size] for row in table]
    for short, long, show, left_out in COLUMNS:
        shown = [show(row.record) for row in table]
        if any(shown) and left_out <= most:
            heading.append(long if whole else short)
            for line, figure in zip(body, shown, strict=True):
                line.append(figure or "-")
    for line, row in zip(body, table, strict=True):
        line.append(_word(row))
    return [[*heading, "verdict"], *body]


def _figures(cells: list[list[str]]) -> range:
    """The columns between the names and the verdict."""
    return range(2, len(cells[0]) - 1)


def _word(row: Row) -> str:
    if not row.problems:
        return "ok"
    if all(problem.startswith(REFUSED) for problem in row.problems):
        return "refused"
    return "skipped" if was_skipped(row) else "FAILED"


def problems(table: list[Row]) -> list[str]:
    return [f"{row.strategy}-{row.size}: {problem}" for row in table for problem in row.problems]


def fates(table: list[Row]) -> list[str]:
    """How those loads ended that were given too little memory."""
    return [f"{row.strategy}-{row.size}: {row.record['fate']}" for row in table if row.record.get("fate")]


def _verdict(table: list[Row]) -> list[str]:
    line = best(table)
    return [line] if line else []
