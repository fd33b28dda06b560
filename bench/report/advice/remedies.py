"""Remedies if no load fits a budget: each with its bytes, and whether they fit."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.measure.budgets import expected_to_fit
from bench.measure.case import Case
from bench.measure.expected import bound_bytes
from bench.measure.planning import halved, largest_block, reserved_bytes
from bench.measure.quantised import DivisibleBytes, divisible, quantised
from bench.measure.refusals import states_refusal
from bench.meters.budget import Budget, empty_process_bytes
from bench.meters.measure import Measurement
from bench.meters.process import LoadEnded
from bench.strategies import STRATEGIES
from model.byte_sizes import short_size

# More ranks than anybody has.
MOST_RANKS = 2**20


@dataclass(frozen=True)
class Remedies:
    """A sentence, and a line for each remedy; those that a command checks: a cast by a strategy, a number of ranks."""

    paragraph: str
    lines: tuple[str, ...]
    cast: tuple[str, str] | None = None
    ranks: int | None = None


def of_one_process(
    size: str, known: Mapping[str, Case], plan: Callable[[Case], Measurement], budget: Budget
) -> Remedies:
    """Return what would load a model; `known` are the run's cases, by their strategies. Others are planned."""
    first = next(iter(known.values()))
    others = {name: replace(first, strategy_name=name, user_strategy=None) for name in STRATEGIES}
    cases, footprint = {**others, **known}, others["baseline"].specification.footprint
    device, lines = budget.device_bytes, list[str]()
    too_large = device is not None and footprint.state_bytes > device
    untried = [name for name in cases if name not in known and _may_fit(cases[name], budget)]
    if untried:
        lines += [f"another strategy, maybe: {', '.join(untried)} {'was' if len(untried) == 1 else 'were'} not tried"]
    able = [case for case in cases.values() if case.strategy.is_stated and not states_refusal(case)]
    half = None
    if able:
        # What was tried is what the reader knows.
        case = min([case for case in able if case.strategy_name in known] or able, key=_bounds)
        try:
            if not too_large:
                lines += [f"more memory: {case.strategy_name} takes {_taken(plan(case), budget)}"]
            half = _in_half(able, budget, plan)
        except LoadEnded as error:
            lines += [f"{case.strategy_name} cannot be planned: {error}"]
    lines += [half.line] if half else []
    ranks = None
    # What the allocator takes counts, too.
    if device is not None and reserved_bytes(footprint.sizes) > device:
        lines += of_device(others["baseline"], 1, device)
        ranks = fewest_ranks(divisible(others["baseline"]), 1, device)
    cast = half.cast if half and half.fits else None
    return Remedies(_sentence(size, footprint.state_bytes, device), tuple(lines), cast, ranks)


def of_device(case: Case, ranks: int, device_bytes: int) -> Iterator[str]:
    """Yield what makes each of some devices need less, whatever strategy loads it."""
    yield _quantising(case, ranks, device_bytes)
    yield _more_ranks(divisible(case), ranks, device_bytes)
    yield _offloading(case, device_bytes)


def _sentence(size: str, state_bytes: int, device: int | None) -> str:
    if device is not None and state_bytes > device:
        return (
            f"No strategy can load {size} with this memory: its weights take {short_size(state_bytes)} of the device, "
            f"which has {short_size(device)}. What would, by plan:"
        )
    return f"No strategy loads {size} with this memory. What would, by plan:"


def _may_fit(case: Case, budget: Budget) -> bool:
    return not states_refusal(case) and expected_to_fit(case, budget, 0) is not False


def _bounds(case: Case) -> tuple[int, int]:
    """Return the bytes that it takes of the device, and of the host."""
    device, host = (bound_bytes(case, f"{kind}_peak_bytes") for kind in ("device_requested", "host_private"))
    return device or 0, case.specification.footprint.state_bytes if host is None else host


def _taken(measurement: Measurement, budget: Budget) -> str:
    device, host = measurement.device.reserved_bytes, measurement.host.private_bytes or 0
    takes = [f"{short_size(device)} of the device"] if device is not None else []
    beside = "" if budget.host_bytes is None else " beside an empty process"
    return " and ".join([*takes, f"{short_size(host)} of the host{beside}"])


@dataclass(frozen=True)
class _Half:
    """A model cast to half as many bytes: its line, whether it fits, and how it is loaded."""

    line: str
    fits: bool
    cast: tuple[str, str]


def _in_half(able: Sequence[Case], budget: Budget, plan: Callable[[Case], Measurement]) -> _Half | None:
    halves = list(filter(None, map(halved, able)))
    if not halves:
        return None
    half = min(halves, key=_bounds)
    measurement = plan(half)
    device, host = measurement.device.reserved_bytes, measurement.host.private_bytes or 0
    fits = budget.device_bytes is None or (device or 0) <= budget.device_bytes
    if budget.host_bytes is not None:
        fits &= host + empty_process_bytes(half.timeout_seconds, half.device) <= budget.host_bytes
    line = f"--cast {half.cast}: {half.strategy_name} takes {_taken(measurement, budget)}, which {fits_or_not(fits)}"
    return _Half(line, fits, (half.strategy_name, half.cast))


def _quantising(case: Case, ranks: int, device_bytes: int) -> str:
    """Return the bytes of quantised weights on each of some devices."""
    parts = [
        f"{name} {short_size(count)}, which {fits_or_not(count <= device_bytes)}"
        for name, bits in (("int8", 8), ("4 bit", 4))
        for count in [quantised(case, bits).of_rank(ranks)]
    ]
    each = " on each device" if ranks > 1 else ""
    return f"quantising{each}: {'; '.join(parts)} (bytes only: no strategy here loads it)"


def fewest_ranks(sizes: DivisibleBytes, tried: int, device_bytes: int) -> int | None:
    """Return the smallest power of two of ranks, above those tried, whose shares fit a device; None: none does."""
    counts = (2**power for power in range(tried.bit_length(), MOST_RANKS.bit_length()))
    return next((count for count in counts if sizes.reserved_of_rank(count) <= device_bytes), None)


def _more_ranks(sizes: DivisibleBytes, tried: int, device_bytes: int) -> str:
    """Return what each of several devices takes of the weights, by theory."""
    if (ranks := fewest_ranks(sizes, tried, device_bytes)) is None:
        least = short_size(sizes.reserved_of_rank(MOST_RANKS))
        return f"more devices: each takes {least} or more, whatever their number, which does not fit"
    return f"more devices: each of {ranks:,} takes {short_size(sizes.of_rank(ranks))}, which fits"


def _offloading(case: Case, device_bytes: int) -> str:
    """Return what the largest block takes of the device, one after the other, with the weights on the host."""
    name, block = largest_block(case)
    return (
        f"offloading: weights on the host, a block at a time on the device: {short_size(block)} for {name}, which "
        f"{fits_or_not(block <= device_bytes)}"
    )


def fits_or_not(fits: bool) -> str:
    """Return the end of a sentence."""
    return "fits" if fits else "does not fit"
