"""How figures of a record are shown in the cells of a table."""

from collections.abc import Callable

from bench.record.record import Record
from model.byte_sizes import GIB, short_size

Show = Callable[[Record], str | None]
# Heading, the same where there is room, how a record's figure is shown, and where the terminal is narrow: the higher,
# the sooner it is left out.
Column = tuple[str, str, Show, int]


def measured(name: str, show: Callable[[Record], str]) -> Show:
    """How a record's figure is shown; None where the record has not measured the one of this name."""
    return lambda record: None if record.get(name) is None else show(record)


def gib(name: str) -> Show:
    return measured(name, lambda record: f"{record[name] / GIB:.2f}")


def ratio(name: str) -> Show:
    return bound(name, of=name)


def bound(name: str, of: str) -> Show:
    """A ratio beside the figure that it is for; of a loader of the user's there may be none."""
    return lambda record: None if None in (record.get(name), record.get(of)) else f"{record[name]:.2f}x"


def multiple(name: str, of: str = "state_bytes") -> Show:
    shown = measured(name, lambda record: f"{record[name] / record[of]:.2f}x")
    return lambda record: shown(record) if record.get(of) else None


def amount(name: str) -> Show:
    return measured(name, lambda record: short_size(record[name]))


def number(name: str) -> Show:
    return measured(name, lambda record: f"{record[name]:.2f}")


def three_digits(name: str, scale: float) -> Show:
    return measured(name, lambda record: in_three_digits(record[name] * scale))


def in_three_digits(figure: float) -> str:
    return next(text for digits in (2, 1, 0) if len(text := f"{figure:.{digits}f}") <= len("0.00") or not digits)


def faults(record: Record) -> str:
    return f"{record['minor_faults'] + record.get('major_faults', 0):,}"
