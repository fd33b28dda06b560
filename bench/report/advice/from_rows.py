"""The strategy to use by the rows of a run alone, and without a budget the whole advice: pages make it of old runs."""

from collections.abc import Sequence

from bench.report.advice.advice import Advice
from bench.report.advice.command import check_of, options_of
from bench.report.advice.fitting import needs, to_use
from bench.report.advice.usage import usage
from bench.report.rows import Row


def chosen(table: Sequence[Row]) -> list[Row]:
    """Return the row to use of the largest model, and those that are as good; with a budget, of those that fit.

    Empty if nothing fits, or nothing was measured.
    """
    loads = [row for row in table if row.record.state_bytes and row.record.strategy]
    if not loads:
        return []
    largest = max(row.record.state_bytes for row in loads)
    loads = [row for row in loads if row.record.state_bytes == largest and not (row.has_failed or row.was_refused)]
    if any(row.record.fits is not None for row in table):
        fitting = [row for row in loads if row.record.fits]
    else:
        fitting = [row for row in loads if row.record.host_total_peak_bytes is not None]
    return to_use(fitting) if fitting else []


def suggested(table: Sequence[Row]) -> Advice | None:
    """Return the advice of a run without a budget; None if no memory was measured, or there was a budget."""
    if any(row.record.fits is not None for row in table) or not (rows := chosen(table)):
        return None
    best, *equal = rows
    command = check_of(best, options_of(best, table))
    of_ranks = bool(best.key.parallelism)
    # A script for ranks divides the model: rows do not know its modules.
    lines = () if of_ranks else tuple(usage(best, None))
    return Advice(best.key.strategy, " ".join(needs(best, equal)), (), command, command, lines, of_ranks)
