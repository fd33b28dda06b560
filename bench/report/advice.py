"""Advice for a memory budget: the one strategy to use, or what would fit if none does."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

from bench.measure.budgets import expected_to_fit
from bench.measure.case import Case
from bench.measure.expected import bound_bytes
from bench.measure.planning import halved, largest_block, reserved_bytes
from bench.measure.refusals import states_refusal
from bench.meters import kind_of
from bench.meters.budget import Budget, empty_process_bytes
from bench.meters.measure import Measurement
from bench.meters.process import LoadEnded
from bench.record.row_key import RowKey
from bench.report.recommendation import EQUAL_TIMES, fastest, least_memory
from bench.report.rows import Row, listed
from bench.strategies import STRATEGIES
from bench.strategies.inline_recipe import pasteable
from model.byte_sizes import short_size


@dataclass(frozen=True)
class Advice:
    """The lines of an advice, its strategy (None: no strategy fits), and the arguments of that beside the path."""

    strategy: str | None
    lines: tuple[str, ...]
    cast: str | None = None
    device: str = "cuda"
    # Names that the checkpoint lacks; and what of it was changed before it was loaded.
    missing: tuple[str, ...] = ()
    changed: str | None = None

    def code(self) -> str | None:
        """Return a module to be pasted; None if the strategy is the user's own, or there is none."""
        return pasteable(STRATEGIES[self.strategy]) if self.strategy in STRATEGIES else None

    def how_to_use(self, written: Path | None) -> list[str]:
        """Return the place of the code, and the lines that use it."""
        if (code := self.code()) is None or self.strategy is None:
            return []
        name = f"load_{self.strategy}"
        given = [f'torch.device("{self.device}")', *([f"dtype=torch.{self.cast}"] if self.cast else [])]
        given += [f"missing={list(self.missing)!r}"] if self.missing else []
        where = f"{written}, {len(code.splitlines())} lines" if written else "written when the run is recorded"
        return [
            f"Its code, torch and the standard library only: {where}",
            f"    from {name} import {self.strategy}",
            f'    model = {self.strategy}(build, "checkpoint.pt", {", ".join(given)})  # build() makes your model',
            *([f"    # It was given a copy of the checkpoint, {self.changed}"] if self.changed else []),
        ]


def advised(
    table: Sequence[Row], cases: Sequence[Case], plan: Callable[[Case], Measurement], budget: Budget
) -> Advice | None:
    """Return advice for the largest model whose loads were tried under a budget; None if none was.

    `cases` are those of the run, and `plan` says what a load would take that there is not.
    """
    tried = [row for row in table if row.record.fits is not None or _cannot_fit(row, budget)]
    if not tried:
        return None
    largest = max(row.record.state_bytes for row in tried)
    tried = [row for row in tried if row.record.state_bytes == largest]
    fitting = [row for row in tried if row.record.fits and not (row.has_failed or row.was_refused)]
    size = tried[0].size
    if fitting:
        return _as_measured(_one_that_fits(fitting, tried), cases, size)
    known = {
        case.strategy_name: case
        for case in cases
        if case.size == size and case.row_key == RowKey(case.strategy_name, size)
    }
    return Advice(None, tuple(_what_would(size, known, plan, budget)))


def _as_measured(advice: Advice, cases: Sequence[Case], size: str) -> Advice:
    """Return the advice with the arguments that the strategy was given in the run."""
    for case in cases:
        if (case.strategy_name, case.size) == (advice.strategy, size):
            source = case.user_model.source if case.user_model else None
            said = "; ".join(source.conversion.notes) if source and not case.specification.in_place else ""
            device = kind_of(case.device).torch_type
            return replace(advice, device=device, missing=case.specification.missing, changed=said or None)
    return advice


def _cannot_fit(row: Row, budget: Budget) -> bool:
    """Return True if the weights alone are more than the device has: such a load needs no trial."""
    if budget.device_bytes is None or row.key.parallelism or row.record.strategy is None:
        return False
    state: int = row.record.state_bytes
    return state > budget.device_bytes


def _one_that_fits(fitting: Sequence[Row], tried: Sequence[Row]) -> Advice:
    best, *equal = _best_of(fitting)
    lines = [f"Use {best.name} for {best.size}: it fits{_takes(best)}{_speed(best, equal, fitting)}."]
    if best.record.ownership == "mapped":
        lines.append("Its weights stay in the pages of the file, which has to stay as it is while the model is used.")
    if dying := [row.name for row in tried if not row.record.fits]:
        lines.append(f"{', '.join(dying)} {'does' if len(dying) == 1 else 'do'} not fit.")
    if broken := [row.name for row in tried if row.record.fits and row.has_failed]:
        lines.append(f"{', '.join(broken)} failed otherwise.")
    return Advice(best.name, tuple(lines), best.record.cast)


def _best_of(fitting: Sequence[Row]) -> list[Row]:
    """Return the rows that take least memory: of the fastest if times are of the device asked for, or else of all.

    What a CPU copies is no reason to choose for a GPU. Those that take as little come after the best.
    """
    timed = [row for row in fitting if _is_timed_there(row)]
    return least_memory(fastest(timed) if timed else fitting)


def _is_timed_there(row: Row) -> bool:
    record = row.record
    return bool(record.first_logits_seconds) and row.timed_on == record.device


def _takes(row: Row) -> str:
    record, parts = row.record, []
    device, host = record.device_reserved_peak_bytes, record.host_private_peak_bytes
    if device is not None and record.device_budget_bytes:
        parts.append(f"{short_size(device)} of {short_size(record.device_budget_bytes)} of the device")
    if host is not None and record.host_budget_bytes:
        parts.append(f"{short_size(host)} of the host's {short_size(record.host_budget_bytes)} beside an empty process")
    return f", taking {' and '.join(parts)}" if parts else ""


def _speed(best: Row, equal: Sequence[Row], fitting: Sequence[Row]) -> str:
    if not _is_timed_there(best):
        alike = f", as {listed([row.name for row in equal])} {'does' if len(equal) == 1 else 'do'}" if equal else ""
        return "" if len(fitting) == 1 else f", and takes least of the {len(fitting)} that do{alike}"
    seconds = best.seconds
    speed = f"; first logits come after {seconds:.2f} s"
    others = [row for row in fitting if row is not best and _is_timed_there(row)]
    if not others:
        return speed
    next_best = min(others, key=lambda row: row.seconds)
    times = next_best.seconds / seconds
    if times <= EQUAL_TIMES:
        return f"{speed}, as soon as with {next_best.name}{'' if next_best in equal else ', which takes more'}"
    return f"{speed}, {times:.1f} times as fast as with {next_best.name}, the next"


def _what_would(
    size: str, known: Mapping[str, Case], plan: Callable[[Case], Measurement], budget: Budget
) -> Iterator[str]:
    """Yield what would load a model that nothing loads with a budget; `known`: the run's cases, by their strategies."""
    first = next(iter(known.values()))
    others = {name: replace(first, strategy_name=name, user_strategy=None) for name in STRATEGIES}
    cases, footprint = {**others, **known}, others["baseline"].specification.footprint
    device = budget.device_bytes
    too_large = device is not None and footprint.state_bytes > device
    if device is not None and too_large:
        yield (
            f"No strategy can load {size} with this memory: its weights take {short_size(footprint.state_bytes)} of "
            f"the device, which has {short_size(device)}. What would, by plan:"
        )
    else:
        yield f"No strategy loads {size} with this memory. What would, by plan:"
    untried = [name for name in cases if name not in known and _may_fit(cases[name], budget)]
    if untried:
        yield f"  another strategy, maybe: {', '.join(untried)} {'was' if len(untried) == 1 else 'were'} not tried"
    able = [case for case in cases.values() if case.strategy.is_stated and not states_refusal(case)]
    if able:
        # What was tried is what the reader knows.
        case = min([case for case in able if case.strategy_name in known] or able, key=_bounds)
        try:
            if not too_large:
                yield f"  more memory: {case.strategy_name} takes {_taken(plan(case), budget)}"
            yield from _in_half(able, budget, plan)
        except LoadEnded as error:
            yield f"  {case.strategy_name} cannot be planned: {error}"
    if device is not None:
        yield from _on_devices(others["baseline"], device)


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


def _in_half(able: Sequence[Case], budget: Budget, plan: Callable[[Case], Measurement]) -> Iterator[str]:
    halves = list(filter(None, map(halved, able)))
    if not halves:
        return
    half = min(halves, key=_bounds)
    measurement = plan(half)
    device, host = measurement.device.reserved_bytes, measurement.host.private_bytes or 0
    fits = budget.device_bytes is None or (device or 0) <= budget.device_bytes
    if budget.host_bytes is not None:
        fits &= host + empty_process_bytes(half.timeout_seconds, half.device) < budget.host_bytes
    yield f"  --cast {half.cast}: {half.strategy_name} takes {_taken(measurement, budget)}, which {_fits(fits)}"


def _on_devices(case: Case, device_bytes: int) -> Iterator[str]:
    """Yield the bytes that a device needs for its part of the weights, or for one block, whatever strategy loads it."""
    footprint = case.specification.footprint
    reserved = reserved_bytes(footprint.sizes)
    if (count := ceil(reserved / device_bytes)) == 1:
        return
    each = max(ceil(reserved / count), footprint.largest_tensor_bytes)
    but = "" if each <= device_bytes else f", which {_fits(each <= device_bytes)}"
    yield f"  sharding: {count} devices with about {short_size(each)} each, of {short_size(reserved)}{but}"
    name, block = largest_block(case)
    yield (
        f"  offloading: weights on the host, a block at a time on the device: {short_size(block)} for {name}, which "
        f"{_fits(block <= device_bytes)}"
    )


def _fits(fits: bool) -> str:
    return "fits" if fits else "does not fit"
