"""The strategy to use by the rows of a run alone, and without a budget the whole advice: pages make it of old runs."""

from collections.abc import Sequence

from bench.conformance.judge import CellStatus
from bench.conformance.sweep import Cell
from bench.report.advice.advice import Advice
from bench.report.advice.command import check_of, options_of
from bench.report.advice.fitting import needs, to_use
from bench.report.advice.usage import usage
from bench.report.conformance import is_fit
from bench.report.rows import Row


def chosen(table: Sequence[Row], cells: Sequence[Cell] = ()) -> list[Row]:
    """Return the row to use of the largest model, and those that are as good; empty if there is none.

    With a budget it is of those that fit, as in the advice. Without one, strategies that load models of the run's
    conformance `cells` wrongly are left out.
    """
    loads = [row for row in table if row.record.state_bytes and row.record.strategy]
    if not loads:
        return []
    largest = max(row.record.state_bytes for row in loads)
    loads = [row for row in loads if row.record.state_bytes == largest and not (row.has_failed or row.was_refused)]
    if _has_budget(table):
        usable = [row for row in loads if row.record.fits]
    else:
        wrong = {
            cell.strategy for cell in cells if is_fit(cell) and cell.outcome in (CellStatus.WRONG, CellStatus.DIED)
        }
        metered = [row for row in loads if row.record.host_total_peak_bytes is not None]
        usable = [row for row in metered if row.key.strategy not in wrong]
    return to_use(usable) if usable else []


def suggested(table: Sequence[Row], cells: Sequence[Cell] = ()) -> Advice | None:
    """Return the advice of a run without a budget; None if no memory was measured, or there was a budget."""
    if _has_budget(table) or not (rows := chosen(table, cells)):
        return None
    best, *equal = rows
    command = check_of(best, options_of(best, table))
    of_ranks = bool(best.key.parallelism)
    # A script for ranks divides the model: rows do not know its modules.
    lines = () if of_ranks else tuple(usage(best, None))
    return Advice(best.key.strategy, " ".join(needs(best, equal)), (), command, command, lines, of_ranks)


def _has_budget(table: Sequence[Row]) -> bool:
    return any(row.record.fits is not None for row in table)
