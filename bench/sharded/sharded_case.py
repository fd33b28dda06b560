"""One measurement of many processes: which strategy loads which checkpoint, divided how among how many ranks."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

import psutil

from bench.measure.case import Case
from bench.measure.expected import blank_record, bound_bytes, shortage
from bench.measure.refusals import skip_reason
from bench.meters import device_meter
from bench.record.record import Record, ratio
from bench.record.row_key import RowKey
from bench.sharded.rank_group import RankGroup, local_group
from bench.sharded.recipes import SHARDED, ShardedStrategy
from bench.sharded.share import Share, shares
from model.architecture import Architecture
from model.byte_sizes import gigabytes
from model.parallel import PARALLELISMS

ALONE = local_group(1)


@cache
def _shares(architecture: Architecture, parallelism: str, count: int) -> list[Share]:
    return shares(architecture.skeleton(), PARALLELISMS[parallelism], count)


@dataclass(frozen=True)
class ShardedCase(Case):
    """The names of a measurement of all ranks of a group; `parallelism` is one of `PARALLELISMS`."""

    parallelism: str = "fsdp"
    group: RankGroup = ALONE

    def __str__(self) -> str:
        return f"{self.strategy_name}-{self.parallelism}-{self.size}-x{self.group.count}-{self.device}"

    @property
    def row_key(self) -> RowKey:
        return RowKey(self.strategy_name, self.size, self.parallelism, self.group.count)

    @property
    def strategy(self) -> ShardedStrategy:
        return SHARDED[self.strategy_name]

    @property
    def _row(self) -> ShardedStrategy:
        return self.strategy

    @property
    def simulated(self) -> bool:
        """True if no rank hears of another: what one sends is not sent."""
        return not self.has_values

    @property
    def shares(self) -> list[Share]:
        """The terms of bounds for every rank."""
        return _shares(self.specification.architecture, self.parallelism, self.group.count)

    @property
    def measured_ranks(self) -> tuple[int, ...]:
        """The ranks that this process measures: of a plan one of all that have the same to do."""
        if not self.planned:
            return self.group.local
        first: dict[Share, int] = {}
        for rank, one in enumerate(self.shares):
            first.setdefault(one, rank)
        return tuple(first.values())

    def representatives(self, measured: Iterable[int]) -> list[int]:
        """Return, for every rank of the group, a measured one that has the same to do."""
        kinds = {self.shares[rank]: rank for rank in measured} if self.planned else {}
        return [kinds.get(one, rank) for rank, one in enumerate(self.shares)]

    def device_of(self, rank: int) -> str:
        """Return the device of a rank of this process."""
        return f"{self.device}:{self.group.device_index(rank)}" if self.kind.is_numbered else self.device

    @property
    def state_bytes(self) -> int:
        return self.specification.footprint.state_bytes


@skip_reason.register
def _(case: ShardedCase) -> str | None:
    if case.planned and not case.strategy.plannable:
        return f"{case.strategy_name} cannot be planned: its reader wants bytes"
    return case.strategy.skip_reason


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
        share_bytes=max(one.held_bytes for one in case.shares),
        device_bound_ratio=ratio(bound_bytes(case, "device_requested_peak_bytes"), case.state_bytes),
        limit=None,
    )
