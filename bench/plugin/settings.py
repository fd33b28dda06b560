"""What a run is to measure: the options of a command line as values that can be trusted."""

import sys
from dataclasses import dataclass
from pathlib import Path
from sysconfig import get_path

from bench.conformance.conformance_case import ConformanceCase
from bench.conformance.properties import columns
from bench.measure.case import Case
from bench.measure.judging import judges_whole
from bench.measure.refusals import skip_reason
from bench.measure.roofline_case import RooflineCase
from bench.meters.budget import Budget
from bench.record.record import Record
from bench.sharded.rank_group import RankGroup
from bench.sharded.recipes import SHARDED
from bench.sharded.sharded_case import ShardedCase
from bench.strategies import KNOWN, PEERS, STRATEGIES, Strategy
from bench.strategies.lazy_recipe import LazyRecipe
from model.user.factory import Factory
from model.user.user_model import UserModel


@dataclass(frozen=True)
class Settings:
    """What is to be measured, and where its checkpoints are kept.

    `own` is the user's model, whose name is in `sizes`, and `own_strategies` are loaders of the user's by their names,
    `tolerated` the properties that those need not keep.
    `real_device` is the device of measurements that want values, times for one; None: they are left out. With `teams`
    their loads are measured, and no others: of models divided by each of `parallelisms`. With `require_all` a run fails
    if a strategy refuses its model or is skipped. `cast` is the dtype that floating-point weights end in; "": the
    checkpoint's, `dtype`. `stand_in` is the memory of the stand-in for a GPU that is loaded to; None: there is none.
    """

    sizes: tuple[str, ...]
    strategies: tuple[str, ...]
    device: str
    real_device: str | None
    dtype: str
    checkpoints: Path
    cache: str
    planned: bool
    require_all: bool
    explain: bool
    conformance: bool
    export: Path | None
    report: Path | None
    own: UserModel | None
    own_strategies: dict[str, Strategy]
    tolerated: tuple[str, ...]
    budget: Budget
    find_minimum: bool
    teams: tuple[RankGroup, ...]
    parallelisms: tuple[str, ...]
    cast: str = ""
    stand_in: str | None = None

    @property
    def sharded(self) -> bool:
        """Whether loads of many processes are measured, and no others."""
        return bool(self.teams)

    def sharded_cases(self, *, real: bool) -> list[ShardedCase]:
        """Every measurement of many processes; `real`: of those that want values."""
        device = self.real_device if real else self.device
        return [
            ShardedCase(
                *self._named(strategy, size, device), stand_in=self.stand_in, parallelism=parallelism, group=team
            )
            for size in self.sizes
            for team in self.teams
            for parallelism in self.parallelisms
            for strategy in self.strategies
            if device is not None
        ]

    def cases(self, *, real: bool) -> list[Case]:
        """Every measurement, size by size; `real`: of those that want values."""
        if self.sharded:
            return []
        device = self.real_device if real else self.device
        return [
            Case(
                *self._named(strategy, size, device),
                *(self.own, self.own_strategies.get(strategy), self.cast, self.stand_in),
            )
            for size in self.sizes
            for strategy in self.strategies
            if device is not None
        ]

    def _named(self, strategy: str, size: str, device: str) -> tuple[str, str, str, str, bool, str]:
        """What every case has, in the order of its fields."""
        return strategy, size, device, self.dtype, self.planned, self.cache

    def judged(self) -> list[Case]:
        """The loads that are judged before anything is measured: all of the user's model, and by the user's loaders.

        Of a large model a strategy of the suite is judged when it is measured.
        """
        return [
            case
            for case in self.cases(real=True)
            if case.user_strategy or (case.strategy.peer is None and judges_whole(case))
        ]

    def limits(self) -> list[RooflineCase]:
        """Return the cases of limits, each kind once a size; none on a stand-in for a GPU, which has no times."""
        kinds: dict[str, RooflineCase] = {}
        for case in self.cases(real=True):
            limit = RooflineCase(**vars(case))
            if skip_reason(case) is None and case.stand_in is None:
                kinds.setdefault(str(limit), limit)
        return list(kinds.values())

    def trials(self) -> list[ConformanceCase]:
        """Every cell of the conformance table, strategy by strategy; none where nothing has values.

        Where the user's model is measured, the suite's strategies are tried on others only if that is asked for.
        """
        if self.sharded:
            return []
        device, known = self.real_device, KNOWN | self.own_strategies
        tried = self.own_strategies if self.own and not self.conformance else self.strategies
        return [
            ConformanceCase(
                strategy, row, device, self.own_strategies.get(strategy), is_tolerated=row in self.tolerated
            )
            for strategy in tried
            for row in columns(known[strategy])
            if device is not None
        ]

    def wants(self, record: Record) -> bool:
        """Whether a recorded benchmark is one of those that these settings stand for, if it is still there.

        The limits that are measured are up to the strategies: if not all of those are, none is missed. On a stand-in
        for a GPU no time is.
        """
        timed = record.bytes_per_second is not None
        every_strategy = (
            set(self.strategies) >= (SHARDED if self.sharded else STRATEGIES).keys() | self.own_strategies.keys()
        )
        return (
            record.size in self.sizes
            and self.is_of_model(record)
            and record.loader == self._loader(record)
            and record.device == (self.real_device if timed else self.device)
            and not (timed and self.stand_in)
            # The first records do not say that nothing of them was planned.
            and (record.dtype, record.cast or "", record.cache, bool(record.planned))
            == (self.dtype, self.cast, self.cache, self.planned)
            and self._divides(record)
            # One that is in no table any more may be missed, but not a peer that nobody asked for.
            and (record.strategy in self.strategies or (every_strategy and record.strategy not in PEERS))
            and self._tries(record)
        )

    def is_of_model(self, record: Record) -> bool:
        """Whether a recorded benchmark loads the model that is measured, and not another one of the same name."""
        model = (self.own.factory.shown, self.own.state_digest) if self.own else (None, None)
        # The first records do not have these fields.
        return (record.model, record.state_digest) == model

    def _loader(self, record: Record) -> str | None:
        """The loader of the user's that has the name of a recorded strategy."""
        own = self.own_strategies.get(record.strategy or "")
        return own.loader if own else None

    def _divides(self, record: Record) -> bool:
        """Whether as many processes load a model that is divided as for this record, if it was."""
        ranks = record.ranks
        if ranks is None:
            return not self.sharded
        return ranks in {team.count for team in self.teams} and record.parallelism in self.parallelisms

    def _tries(self, record: Record) -> bool:
        """Whether loads are tried under budgets as they were for this record, if they were."""
        tried = Budget(record.device_budget_bytes, record.host_budget_bytes)
        smallest = record.smallest_tolerance_bytes is not None
        return (not tried or tried == self.budget) and (not smallest or self.find_minimum)

    @property
    def references(self) -> list[Factory]:
        """All that is the user's."""
        loads = [strategy.load for strategy in self.own_strategies.values()]
        models = [self.own.factory, self.own.example] if self.own else []
        return [*filter(None, models), *(load.reference for load in loads if isinstance(load, LazyRecipe))]

    @property
    def libraries(self) -> set[str]:
        """The modules of installed packages that the user's model is made of: to import them may take seconds."""
        if self.own is None:
            return set()
        named = {type(module).__module__ for module in self.own.skeleton().modules()}
        files = {name: getattr(sys.modules.get(name), "__file__", None) or "" for name in named}
        return {name for name, file in files.items() if file.startswith(get_path("purelib"))}

    @property
    def own_folders(self) -> list[Path]:
        """Where what is the user's lies."""
        source = self.own.source if self.own else None
        folders = [one.folder for one in self.references if one.folder]
        return [*folders, *([source.path.parent] if source else [])]

    @property
    def notes(self) -> list[str]:
        """What else has to be said of what is measured, a line each."""
        if not self.own or not self.own.source or not (note := self.own.source.note):
            return []
        return [f"{self.own.label}: {note}"]

    @property
    def title(self) -> str:
        """What is measured where, in a few words."""
        dtype = f"{self.dtype} cast to {self.cast}" if self.cast else self.dtype
        device = f"{self.device} (stand-in {self.stand_in})" if self.stand_in else self.device
        if self.planned:
            return f"{dtype} to {device}, planned"
        times = "" if self.real_device in (None, self.device) else f", times on {self.real_device}"
        return f"{dtype} to {device}{times}, page cache {self.cache}"
