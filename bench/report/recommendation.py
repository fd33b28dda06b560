"""Strategies that a run recommends: by memory, and separately by time."""

from collections.abc import Callable, Sequence

from bench.meters import recorded_kind
from bench.record.formats import in_three_digits
from bench.report.rows import Row, listed, peak_ratio
from bench.report.unit import unit
from bench.sharded.recipes import SHARDED
from bench.strategies import STRATEGIES

# Peaks that differ by less than a twentieth of the model are equal to whoever has to choose.
EQUAL_MEMORY = 0.05
# What a machine that others use too does not tell apart.
EQUAL_TIMES = 1.1

UNKNOWN = float("inf")


def best(table: Sequence[Row]) -> list[str]:
    """Name the strategies that take least memory where the weights end, and the fastest ones, a line each.

    Said of the largest size, of those that fit and did not fail; all that are equal are named. Where no memory, or no
    time, was measured, there is no such line.
    """
    usable = [row for row in table if row.fits and not (row.has_failed or row.was_refused) and row.record.state_bytes]
    lines = []
    if metered := _largest([row for row in usable if _is_metered(row)]):
        lines.append(f"Least memory: {_chosen(metered, least_memory, _peaks, lambda row: row.record.ownership)}")
    if timed := _largest([row for row in usable if row.record.first_logits_seconds]):
        where = "GPU" if recorded_kind(timed[0].timed_on).is_gpu else "CPU"
        lines.append(f"Fastest on this {where}: {_chosen(timed, fastest, _seconds, lambda row: row.timed_ownership)}")
    return lines


def least_memory(candidates: Sequence[Row]) -> list[Row]:
    """Return the rows that take least of the device, and of these least private memory of the host; all that are equal.

    First comes what takes least by theory, then what comes first in the table: noise does not change the order.
    """
    for place in range(len(memory(candidates[0]))):
        least = min(memory(row)[place] for row in candidates)
        candidates = [row for row in candidates if memory(row)[place] <= least + EQUAL_MEMORY]
    return sorted(candidates, key=lambda row: memory(row) if _is_stated(row) else (UNKNOWN,))


def memory(row: Row) -> tuple[float, ...]:
    """Return the peaks that a user weighs, as ratios: of the device and of the host beside it, or of the host alone.

    Those of the suite's strategies are what theory says, which is what measured ones are held to.
    """
    on_device = row.record.device_peak_ratio is not None or not recorded_kind(row.record.device).is_host
    return tuple(_ratio(row, figure) for figure in (("device", "host") if on_device else ("host",)))


def fastest(candidates: Sequence[Row]) -> list[Row]:
    """Return the rows whose first logits come earliest, all that are as early, in the order of the table."""
    least = min(row.seconds for row in candidates)
    return [row for row in candidates if row.seconds <= least * EQUAL_TIMES]


def _ratio(row: Row, figure: str) -> float:
    stated = peak_ratio(row.record, f"{figure}_bound_ratio") if _is_stated(row) else None
    found = peak_ratio(row.record, f"{figure}_peak_ratio") if stated is None else stated
    return UNKNOWN if found is None else found


def _is_stated(row: Row) -> bool:
    return row.key.strategy in STRATEGIES or row.key.strategy in SHARDED


def _largest(candidates: Sequence[Row]) -> list[Row]:
    """Return the rows of the largest size, and of these those of most processes."""
    of_size = [row for row in candidates if row.record.state_bytes == max(one.record.state_bytes for one in candidates)]
    return [row for row in of_size if row.key.ranks == max(one.key.ranks for one in of_size)]


def _is_metered(row: Row) -> bool:
    return row.record.device_peak_ratio is not None or row.record.host_peak_ratio is not None


def _chosen(
    candidates: Sequence[Row],
    choose: Callable[[Sequence[Row]], list[Row]],
    figures: Callable[[Sequence[Row]], str],
    ownership: Callable[[Row], str | None],
) -> str:
    """Name the chosen rows of each division of the model, and after a mapped one, one that owns."""
    parts = []
    for division in dict.fromkeys(row.key.division for row in candidates):
        alike = [row for row in candidates if row.key.division == division]
        chosen = choose(alike)
        owned = [row for row in alike if ownership(row) != "mapped"]
        if any(row in owned for row in chosen):
            parts.append(_praise(chosen, figures(chosen)))
            continue
        parts.append(_praise(chosen, f"{figures(chosen)}, mapped"))
        if owned:
            chosen = choose(owned)
            parts.append(f"owning its weights: {_praise(chosen, figures(chosen))}")
    return "; ".join(parts)


def _praise(chosen: Sequence[Row], figures: str) -> str:
    return f"{listed([row.name for row in chosen])} ({figures})"


def _peaks(chosen: Sequence[Row]) -> str:
    of_bytes, of_ranks = unit(chosen), bool(chosen[0].key.parallelism)
    figures = {"GPU": "device_requested_peak_bytes", "RAM": "host_private_peak_bytes"}
    found = {place: [row.record.value(name) for row in chosen] for place, name in figures.items()}
    spans = {place: _span([one and one / of_bytes.size for one in taken]) for place, taken in found.items()}
    # Ranks are compared by their devices.
    shown = {"GPU": spans["GPU"]} if of_ranks and spans["GPU"] else spans
    return ", ".join(f"{place} {span} {of_bytes.name}" for place, span in shown.items() if span)


def _seconds(chosen: Sequence[Row]) -> str:
    return f"{_span([row.seconds for row in chosen])} s"


def _span(figures: Sequence[float | None]) -> str:
    """Write the least and the most of some figures, or the one that all have; empty if none is known."""
    known = [figure for figure in figures if figure is not None]
    return " to ".join(dict.fromkeys(in_three_digits(find(known)) for find in (min, max))) if known else ""
