"""One measurement of many processes: which strategy loads which checkpoint, divided how among how many ranks."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import cast

import psutil

from bench.conformance.traits import OBSTACLES
from bench.measure.case import Case
from bench.measure.expected import blank_record, bound_bytes, shortage
from bench.measure.refusals import able, obstacles, properties, skip_reason
from bench.meters import device_meter
from bench.record.record import Record, ratio
from bench.record.row_key import RowKey
from bench.sharded.rank_group import RankGroup, local_group
from bench.sharded.recipes import SHARDED, ShardedStrategy
from bench.sharded.share import Share, shares
from model.architecture import DTYPES, Architecture
from model.byte_sizes import gigabytes
from model.checkpoints.specification import Specification
from model.parallel.blocks import blocks_in_words
from model.parallel.division import BY_FSDP, FSDP, Division

ALONE = local_group(1)
# More are not read.
MOST_NAMES = 3


@cache
def _shares(specification: Specification, division: Division, count: int, *, on_host: bool) -> list[Share]:
    user_model = specification.user_model
    model, to = specification.architecture.skeleton(), DTYPES.get(specification.cast)
    dtypes = dict(user_model.conversion.dtypes) if user_model else {}
    return shares(model, division, count, dtypes, to, files=specification.files, on_host=on_host)


@cache
def _objection(architecture: Architecture, division: Division, count: int, to: str) -> str | None:
    return division.objection(architecture.skeleton(), count, one_dtype=bool(to))


@dataclass(frozen=True)
class ShardedCase(Case):
    """The names of a measurement of all ranks of a group, which divide the model in one way."""

    division: Division = BY_FSDP
    group: RankGroup = ALONE

    @property
    def parallelism(self) -> str:
        """The kind of its division, of `PARALLELISMS`."""
        return self.division.parallelism

    def __str__(self) -> str:
        names = (
            self.strategy_name,
            self.parallelism,
            self.size,
            f"x{self.group.count}",
            self.device,
            self.asked_layout,
        )
        return "-".join(filter(None, names))

    @property
    def row_key(self) -> RowKey:
        return RowKey(self.strategy_name, self.size, self.parallelism, self.group.count)

    @property
    def strategy(self) -> ShardedStrategy:
        return cast("ShardedStrategy", self._row.partial() if self.cast else self._row)

    @property
    def _row(self) -> ShardedStrategy:
        return SHARDED[self.strategy_name]

    @property
    def specification(self) -> Specification:
        """The checkpoint: a copy, where a strategy would take other files beside the user's for parts of it."""
        found = super().specification
        source = found.in_place
        if source is None or not self._row.reads_folder:
            return found
        beside = set(source.path.parent.glob("*.safetensors")) - set(source.files)
        return replace(found, copied=bool(beside))

    @property
    def simulated(self) -> bool:
        """True if no rank hears of another: what one sends is not sent."""
        return not self.has_values

    @property
    def shares(self) -> list[Share]:
        """The terms of bounds for every rank."""
        return _shares(self.specification, self.division, self.group.count, on_host=self.kind.is_host)

    @property
    def objection(self) -> str | None:
        """The reason, in a line, why so many ranks cannot divide the model so; None if they can."""
        return _objection(self.specification.architecture, self.division, self.group.count, self.cast)

    @property
    def measured_ranks(self) -> tuple[int, ...]:
        """The ranks that this process measures: of a plan one of all that have the same to do."""
        if not self.planned:
            return self.group.local
        first: dict[Share, int] = {}
        for rank, one in enumerate(self._tasks):
            first.setdefault(one, rank)
        return tuple(first.values())

    def representatives(self, measured: Iterable[int]) -> list[int]:
        """Return, for every rank of the group, a measured one that has the same to do."""
        tasks = self._tasks
        kinds = {tasks[rank]: rank for rank in measured} if self.planned else {}
        return [kinds.get(one, rank) for rank, one in enumerate(tasks)]

    @property
    def _tasks(self) -> list[Share]:
        """The share of every rank, equal where ranks have the same to do: rank 0 leads only where a strategy has it."""
        if self.strategy.has_leader:
            return self.shares
        first, *others = self.shares
        return [replace(first, leads=False), *others]

    def device_of(self, rank: int) -> str:
        """Return the device of a rank of this process."""
        return f"{self.device}:{self.group.device_index(rank)}" if self.kind.is_numbered else self.device

    @property
    def state_bytes(self) -> int:
        return self.specification.footprint.state_bytes


@skip_reason.register
def _(case: ShardedCase) -> str | None:
    if reason := case.strategy.skip_reason:
        return reason
    if case.objection:
        return f"refused: {case.parallelism}: {case.objection}"
    found = properties(case.user_model) if case.user_model else {}
    for name in sorted(case.strategy.refused(case.device) & found.keys()):
        what = f"{name.replace('_', ' ')} ({', '.join(found[name][:MOST_NAMES])})"
        return f"refused: {case.strategy_name} cannot load {what}: {OBSTACLES[name]}"
    return None


@able.register
def _(case: ShardedCase) -> list[str]:
    return [name for name, strategy in SHARDED.items() if not obstacles(case, strategy)]


@bound_bytes.register
def _(case: ShardedCase, figure: str) -> int | None:
    """Return the highest bound of a figure in any rank."""
    expression = case.strategy.bounds.of_peaks(on_host=case.kind.is_host).get(figure)
    return max(one.most_bytes(expression) for one in case.shares) if expression else None


@shortage.register
def _(case: ShardedCase) -> str | None:
    """Return which memory is too small for the loads of all ranks on this machine."""
    if case.planned:
        return None
    bounds = case.strategy.bounds.of_peaks(on_host=case.kind.is_host)
    host, device = bounds.get("host_private_peak_bytes"), bounds.get("device_requested_peak_bytes")
    on_host = sum(case.shares[rank].bound_bytes(host) for rank in case.group.local) if host else 0
    free = psutil.virtual_memory().available
    if on_host > free:
        return f"takes {gigabytes(on_host)} of host memory in all ranks, {gigabytes(free)} are free"
    for rank in case.group.local:
        on_device = case.shares[rank].bound_bytes(device) if device else 0
        free_on_device = device_meter(case.device_of(rank)).free_bytes()
        if free_on_device is not None and on_device > free_on_device:
            return f"takes {gigabytes(on_device)} of device memory, {gigabytes(free_on_device)} are free"
    return None


@blank_record.register
def _(case: ShardedCase) -> Record:
    count = case.group.count
    return replace(
        blank_record.dispatch(Case)(case),
        ranks=count,
        ranks_per_node=case.group.node_count,
        parallelism=case.parallelism,
        blocks=_blocks(case),
        share_bytes=max(one.held_bytes for one in case.shares),
        device_bound_ratio=ratio(bound_bytes(case, "device_requested_peak_bytes"), case.state_bytes),
        limit=None,
    )


def _blocks(case: ShardedCase) -> str | None:
    """Return the blocks that FSDP2 shards, in words; None for GPT-2's own, and for other divisions."""
    wrap = case.division.wrap
    if case.parallelism != FSDP or not (case.user_model or wrap):
        return None
    return blocks_in_words(case.specification.architecture.skeleton(), wrap) or None
