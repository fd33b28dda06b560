"""What to do with the memory that there is to be: the one strategy to use, or what would fit if none does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from bench.cases.case import Case
from bench.cases.planning import halved, largest_block
from bench.meters.budget import Budget, shown
from bench.meters.measure import Measurement
from bench.meters.process import LoadEnded
from bench.report.rows import Row
from bench.strategies import STRATEGIES
from bench.strategies.pasted import pasteable

# What a machine that others use too does not tell apart.
EQUAL_TIMES = 1.1


@dataclass(frozen=True)
class Advice:
    """What is said, and the strategy that it is about; None: no strategy fits."""

    strategy: str | None
    lines: tuple[str, ...]

    def code(self) -> str | None:
        """A module to be pasted; None where the strategy is the user's own, or there is none."""
        return pasteable(STRATEGIES[self.strategy]) if self.strategy in STRATEGIES else None

    def how_to_use(self, written: Path | None) -> list[str]:
        """Where the code is, and the lines that use it."""
        if (code := self.code()) is None or self.strategy is None:
            return []
        name = f"load_{self.strategy}"
        where = f"{written}, {len(code.splitlines())} lines" if written else "written when the run is recorded"
        return [
            f"Its code, torch and the standard library only: {where}",
            f"    from {name} import {self.strategy}",
            f'    model = {self.strategy}(build, "checkpoint.pt", torch.device("cuda"))  # build() makes your model',
        ]


def advised(table: Sequence[Row], cases: Sequence[Case], plan: Callable[[Case], Measurement]) -> Advice | None:
    """Advice for the largest model whose loads were tried under budgets; None where none was.

    `cases` are those of the run, and `plan` says what a load would take that there is not.
    """
    tried = [row for row in table if row.record.get("fits") is not None]
    if not tried:
        return None
    largest = max(row.record["state_bytes"] for row in tried)
    tried = [row for row in tried if row.record["state_bytes"] == largest]
    fitting = [row for row in tried if row.record["fits"] and not row.problems]
    if fitting:
        return _one_that_fits(fitting, tried)
    by_name = {case.strategy_name: case for case in cases if case.size == tried[0].size}
    return Advice(None, tuple(_what_would(tried, [by_name[row.strategy] for row in tried], plan)))


def _one_that_fits(fitting: Sequence[Row], tried: Sequence[Row]) -> Advice:
    times = [row.record["first_logits_seconds"] for row in fitting if row.record.get("first_logits_seconds")]
    quick = [row for row in fitting if times and _seconds(row) <= min(times) * EQUAL_TIMES] or list(fitting)
    best = min(quick, key=_memory)
    lines = [f"Use {best.strategy} for {best.size}: it fits{_takes(best)}{_speed(best, fitting)}."]
    if best.record.get("ownership") == "mapped":
        lines.append("Its weights stay in the pages of the file, which has to stay as it is while the model is used.")
    if dying := [row.strategy for row in tried if not row.record["fits"]]:
        lines.append(f"{', '.join(dying)} {'does' if len(dying) == 1 else 'do'} not fit.")
    if broken := [row.strategy for row in tried if row.record["fits"] and row.problems]:
        lines.append(f"{', '.join(broken)} failed otherwise.")
    return Advice(best.strategy, tuple(lines))


def _seconds(row: Row) -> float:
    return row.record.get("first_logits_seconds") or float("inf")


def _memory(row: Row) -> tuple[int, int]:
    """What a load takes of the device, and of the host."""
    record = row.record
    return record.get("device_reserved_peak_bytes") or 0, record.get("host_private_peak_bytes") or 0


def _takes(row: Row) -> str:
    record, parts = row.record, []
    device, host = record.get("device_reserved_peak_bytes"), record.get("host_private_peak_bytes")
    if device is not None and record.get("device_budget_bytes"):
        parts.append(f"{shown(device)} of {shown(record['device_budget_bytes'])} of the device")
    if host is not None and record.get("host_budget_bytes"):
        parts.append(f"{shown(host)} of the host's {shown(record['host_budget_bytes'])} beside an empty process")
    return f", taking {' and '.join(parts)}" if parts else ""


def _speed(best: Row, fitting: Sequence[Row]) -> str:
    others = [row for row in fitting if row is not best and _seconds(row) < float("inf")]
    if _seconds(best) == float("inf"):
        return "" if len(fitting) == 1 else f", and takes least of the {len(fitting)} that do"
    said = f"; first logits come after {_seconds(best):.2f} s"
    if not others:
        return said
    next_best = min(others, key=_seconds)
    if _seconds(next_best) <= _seconds(best) * EQUAL_TIMES:
        return f"{said}, as soon as with {next_best.strategy}, which takes more"
    return f"{said}, {_seconds(next_best) / _seconds(best):.1f} times as fast as with {next_best.strategy}, the next"


def _what_would(tried: Sequence[Row], cases: Sequence[Case], plan: Callable[[Case], Measurement]) -> list[str]:
    record = tried[0].record
    budget = Budget(record.get("device_budget_bytes"), record.get("host_budget_bytes"))
    lines = [f"No strategy loads {tried[0].size} with this memory. What would, by plan:"]
    untried = [name for name in STRATEGIES if name not in {one.strategy_name for one in cases}]
    if untried:
        lines.append(f"  another strategy, maybe: {', '.join(untried)} were not tried")
    planned = [case for case in cases if case.strategy.peer is None]
    if not planned:
        return lines
    case = min(planned, key=lambda one: (one.bound_bytes("device_requested_peak_bytes") or 0, _host_bound(one)))
    try:
        whole = plan(case)
        lines += _in_half(case, budget, plan)
    except LoadEnded as error:
        return [*lines, f"  nothing can be said: {case.strategy_name} cannot be planned: {error}"]
    if budget.device_bytes is not None and (reserved := whole.device.reserved_bytes):
        lines += _on_devices(case, budget.device_bytes, reserved)
    return lines


def _host_bound(case: Case) -> int:
    bound = case.bound_bytes("host_private_peak_bytes")
    return case.specification.footprint.state_bytes if bound is None else bound


def _in_half(case: Case, budget: Budget, plan: Callable[[Case], Measurement]) -> list[str]:
    half = halved(case)
    if half is None:
        return []
    measurement = plan(half)
    device, host = measurement.device.reserved_bytes, measurement.host.private_bytes or 0
    takes = [f"{shown(device)} of the device"] if device is not None else []
    fits = budget.device_bytes is None or (device or 0) <= budget.device_bytes
    fits &= budget.host_bytes is None or host < budget.host_bytes
    takes.append(f"{shown(host)} of the host")
    return [
        f"  {half.dtype}: {case.strategy_name} takes {' and '.join(takes)}, which {'fits' if fits else 'does not fit'}"
    ]


def _on_devices(case: Case, device_bytes: int, reserved_bytes: int) -> list[str]:
    count = ceil(reserved_bytes / device_bytes)
    largest = case.specification.footprint.largest_tensor_bytes
    each = shown(max(ceil(reserved_bytes / count), largest))
    name, block = largest_block(case)
    fits = "fits" if block <= device_bytes else "does not fit"
    lines = [f"  sharding: {count} devices with about {each} each, of {shown(reserved_bytes)}"] if count > 1 else []
    return [
        *lines,
        f"  offloading: weights on the host, a block at a time on the device: {shown(block)} for {name}, which {fits}",
    ]
