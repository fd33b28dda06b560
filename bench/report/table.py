"""The table at the end of a run: in a terminal of any width, and as Markdown."""

from collections.abc import Callable, Sequence

from bench.report import sharded
from bench.report.formats import (
    Column,
    amount,
    bound,
    faults,
    gib,
    measured,
    multiple,
    number,
    ratio,
    three_digits,
)
from bench.report.peers import peer_lines
from bench.report.recommendation import best
from bench.report.rows import REFUSED, Row, coverage, scales, stand_ins, verdict_word
from bench.report.text_table import aligned, markdown_table

COLUMNS: tuple[Column, ...] = (
    ("budget", "with the budget", measured("fits", lambda record: "fits" if record["fits"] else "dies"), 0),
    ("min. dev.", "smallest device", amount("smallest_device_bytes"), 1),
    ("min. host", "smallest host", amount("smallest_host_bytes"), 1),
    ("GiB", "device GiB", gib("device_requested_peak_bytes"), 10),
    ("device", "device", ratio("device_peak_ratio"), 0),
    ("bound", "device bound", bound("device_bound_ratio", "device_requested_peak_bytes"), 1),
    ("alloc.", "allocated", multiple("device_allocated_peak_bytes"), 9),
    ("reserved", "reserved", multiple("device_reserved_peak_bytes"), 8),
    ("GiB", "private GiB", gib("host_private_peak_bytes"), 11),
    ("private", "private", ratio("host_peak_ratio"), 0),
    ("bound", "private bound", bound("host_bound_ratio", "host_private_peak_bytes"), 4),
    ("file", "file-backed", multiple("host_file_peak_bytes"), 5),
    ("bound", "file-backed bound", bound("host_file_bound_ratio", "host_file_peak_bytes"), 12),
    ("load s", "load, s", number("load_seconds"), 6),
    ("logits s", "first logits, s", number("first_logits_seconds"), 0),
    ("GB/s", "GB/s", three_digits("bytes_per_second", 1e-9), 3),
    ("limit", "of the limit", number("limit_fraction"), 2),
    ("kept", "kept beside the model", multiple("retained_bytes"), 13),
    ("again", "kept after a second load", multiple("retained_again_bytes"), 13),
    ("faults", "page faults", measured("minor_faults", faults), 7),
)
# With every column.
ALL = max(left_out for _, _, _, left_out in (*COLUMNS, *sharded.columns(())))


def terminal_lines(table: list[Row], width: int) -> list[str]:
    """The table in `width` columns, if that is possible at all; then what went wrong, and what is best here."""
    most = ALL
    while max(map(len, lines := aligned(shown := cells(table, most), _figures(shown)))) > width and most > 0:
        most -= 1
    return [*above(table), *lines, *below(table), *best(table)]


def markdown(table: list[Row]) -> str:
    """The same as Markdown, for `$GITHUB_STEP_SUMMARY`."""
    shown = cells(table)
    lines = markdown_table(shown, _figures(shown))
    return "\n".join([*above(table), "", *lines, "", *below(table), "", *best(table), ""])


def above(table: list[Row]) -> list[str]:
    """What the figures of a table are of."""
    return [*scales(table), *sharded.scales(table), *stand_ins(table)]


def below(table: list[Row]) -> list[str]:
    """How many strategies work, what went wrong, and what else there is to say of single rows."""
    return [*coverage(table), *refusals(table), *notes(table)]


def notes(table: list[Row]) -> list[str]:
    """What there is to say of single rows: what went wrong, how those ended that had too little memory, and peers."""
    return [*problems(table), *fates(table), *peer_lines(table)]


def cells(table: list[Row], most: int = ALL, *, whole: bool = False) -> list[list[str]]:
    """Heading, in `whole` words or short, and rows.

    Left out are columns in which no row has a figure, and those that go sooner than `most`.
    """
    heading, body = ["strategy", "size"], [[row.strategy_name, row.size] for row in table]
    for short, long, show, left_out in sharded.columns(table) if any(row.division for row in table) else COLUMNS:
        shown = [show(row.record) for row in table]
        if any(shown) and left_out <= most:
            heading.append(long if whole else short)
            for line, figure in zip(body, shown, strict=True):
                line.append(figure or "-")
    for line, row in zip(body, table, strict=True):
        line.append(verdict_word(row))
    return [[*heading, "verdict"], *body]


def _figures(cells: list[list[str]]) -> range:
    """The columns between the names and the verdict."""
    return range(2 + (sharded.SPLIT in cells[0]), len(cells[0]) - 1)


def refusals(table: Sequence[Row]) -> list[str]:
    """Why strategies refused a model, and what to do, each reason in one line after all who gave it."""
    return _reasons(table, lambda problem: problem.startswith(REFUSED))


def problems(table: Sequence[Row]) -> list[str]:
    """What else went wrong, in such lines."""
    return _reasons(table, lambda problem: not problem.startswith(REFUSED))


def _reasons(table: Sequence[Row], wanted: Callable[[str], bool]) -> list[str]:
    said: dict[str, dict[str, None]] = {}
    for row in table:
        for problem in filter(wanted, row.problems):
            said.setdefault(problem, {})[f"{_whose(problem, row, table)}-{row.size}"] = None
    return [f"{', '.join(names)}: {problem}" for problem, names in said.items()]


def _whose(problem: str, row: Row, table: Sequence[Row]) -> str:
    alike = [one for one in table if one.division and (one.strategy_name, one.size) == (row.strategy_name, row.size)]
    return row.strategy_name if alike and all(problem in one.problems for one in alike) else row.strategy


def fates(table: list[Row]) -> list[str]:
    """How those loads ended that were given too little memory."""
    return [f"{row.strategy}-{row.size}: {row.record['fate']}" for row in table if row.record.get("fate")]
