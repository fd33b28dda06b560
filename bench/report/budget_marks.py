"""The memory that the user gave, in a table: the heading names it, and figures above it have a mark."""

from collections.abc import Sequence
from dataclasses import replace

from bench.meters.budget import Budget
from bench.record.field import Column
from bench.record.formats import Unit
from bench.record.record import Record
from bench.report.rows import Row, Status
from model.byte_sizes import short_size

# Stands before a figure that is more than the budget in its heading.
MARK = "! "
# Verdicts of loads that are right, with a budget.
FITS, TOO_BIG = "fits", "too big"

_DEVICE = "device_requested_peak_bytes"


def with_budget(table: Sequence[Row], budget: Budget | None) -> list[Row]:
    """Return rows that know the budget of their run, and whether they fit: those that were not tried with it, too."""
    if not budget:
        return list(table)
    known = {"device_budget_bytes": budget.device_bytes, "host_budget_bytes": budget.host_bytes}
    return [row if row.key.roofline else replace(row, record=_with_fit(row.record.with_fields(known))) for row in table]


def _with_fit(record: Record) -> Record:
    """Add whether a load fits, if its peaks tell: a larger one does not, and a plan is exact for its device."""
    if record.fits is not None:
        return record
    if _exceeds(record, _DEVICE, "device_budget_bytes") or _exceeds_host(record):
        record.fits = False
    elif record.planned and record.host_budget_bytes is None and record.device_reserved_peak_bytes is not None:
        # An allocator that runs out of memory gives back what it does not use: with less than that it may fit, too.
        exceeds = _exceeds(record, "device_reserved_peak_bytes", "device_budget_bytes")
        record.fits = None if exceeds else True
    return record


def heading(text: str, column: Column, table: Sequence[Row], unit: Unit) -> str:
    """Return a heading with its unit, and the budget if all rows have the same: `GPU of 23 GiB`, `RAM MiB of 4 GiB`."""
    given = {row.record.value(column.budget) for row in table} - {None} if column.budget else set()
    if len(given) != 1:
        return text.format(unit=unit.name)
    amount = short_size(given.pop())
    return text.format(unit=f"of {amount}" if amount.endswith(unit.name) else f"{unit.name} of {amount}")


def mark(record: Record, name: str, column: Column) -> str:
    """Return what stands before a figure of a load that does not fit: the mark, if it is why, or nothing.

    The empty process takes some of the host's memory, so that is too small wherever the device's is not.
    """
    if record.fits is not False or not column.budget or record.value(column.budget) is None:
        return ""
    device = _exceeds_device(record)
    is_why = device if name == _DEVICE else not device or _exceeds(record, name, column.budget)
    return MARK if is_why else ""


def reserves_too_much(record: Record) -> bool:
    """Return True if the tensors of a load are not too big for its device, and what the allocator reserves is."""
    return _exceeds_device(record) and not _exceeds(record, _DEVICE, "device_budget_bytes")


def needs_its_process_too(record: Record) -> bool:
    """Return True if a load is too big for its host with its process, and not without."""
    return record.host_budget_bytes is not None and not (_exceeds_device(record) or _exceeds_host(record))


def verdict(row: Row) -> str:
    """Return the word of the column `verdict`: with a budget, `fits` or `too big` instead of `ok`."""
    if row.status != Status.OK or row.record.fits is None:
        return row.status
    return FITS if row.record.fits else TOO_BIG


def _exceeds_device(record: Record) -> bool:
    """Return True if tensors, or what the allocator reserves for them, are more than the device has."""
    return any(_exceeds(record, one, "device_budget_bytes") for one in (_DEVICE, "device_reserved_peak_bytes"))


def _exceeds_host(record: Record) -> bool:
    """Return True if a load is more than its host has, without the process itself."""
    host = "node_private_peak_bytes" if record.ranks else "host_private_peak_bytes"
    return _exceeds(record, host, "host_budget_bytes")


def _exceeds(record: Record, name: str, budget: str) -> bool:
    given, taken = record.value(budget), record.value(name)
    return given is not None and taken is not None and taken > given
