"""Formats of a record's figures, as cells of a table show them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from model.byte_sizes import short_size

if TYPE_CHECKING:
    from bench.record.record import Record


class Unit(NamedTuple):
    """A unit of bytes that all figures of a table share."""

    name: str
    size: int


MIB, GIB = Unit("MiB", 2**20), Unit("GiB", 2**30)

# Makes a cell of a record's figure, by the name of its field; None: there is nothing to show.
Format = Callable[["Record", str, Unit], str | None]


def _measured(text: Callable[["Record", str, Unit], str]) -> Format:
    """Make a format that shows nothing where the figure is null."""
    return lambda record, name, unit: None if record.value(name) is None else text(record, name, unit)


def in_three_digits(figure: float) -> str:
    """Write a number with three digits, or with all that are before its point."""
    return next(text for digits in (2, 1, 0) if len(text := f"{figure:.{digits}f}") <= len("0.00") or not digits)


def percent(fraction: float, spec: str = "+.1") -> str:
    """Write a fraction as a percentage, such as `+1.1 %`; `spec` formats its number."""
    return f"{fraction:{spec}%}".replace("%", " %")


as_text = _measured(lambda record, name, _: str(record.value(name)))
as_count = _measured(lambda record, name, _: f"{record.value(name):,}")
as_number = _measured(lambda record, name, _: f"{record.value(name):.2f}")
as_ratio = _measured(lambda record, name, _: f"{record.value(name):.2f}x")
as_amount = _measured(lambda record, name, _: short_size(record.value(name)))
as_gigabytes = _measured(lambda record, name, _: in_three_digits(record.value(name) * 1e-9))
as_page_faults = _measured(lambda record, name, _: f"{record.value(name) + (record.major_faults or 0):,}")
in_unit = _measured(lambda record, name, unit: in_three_digits(record.value(name) / unit.size))


def multiple_of(scale: str) -> Format:
    """Make a format of a figure as a multiple of another field, such as `state_bytes`."""

    def text(record: "Record", name: str, _: Unit) -> str | None:
        figure, whole = record.value(name), record.value(scale)
        return f"{figure / whole:.2f}x" if figure is not None and whole else None

    return text


def bound_of(peak: str) -> Format:
    """Make a format of a bound, a ratio, that stands beside its `peak`: without a peak there is none."""
    return lambda record, name, unit: None if record.value(peak) is None else as_ratio(record, name, unit)


def bound_in_unit(peak: str) -> Format:
    """Make a format of the same in bytes: a bound is recorded as a multiple of S."""

    def text(record: "Record", name: str, unit: Unit) -> str | None:
        known = None not in (record.value(name), record.value(peak))
        return in_three_digits(record.value(name) * record.state_bytes / unit.size) if known else None

    return text


def of_share(peak: str) -> Format:
    """Make a format of a peak of a rank as a multiple of the share that this field holds."""
    return lambda record, name, unit: multiple_of(name)(record, peak, unit)
