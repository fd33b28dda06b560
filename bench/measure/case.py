"""One measurement: which strategy loads which checkpoint onto which device."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache, partial

import psutil
import torch

from bench.conformance.traits import OBSTACLES, properties_of
from bench.measure.bounds import expected_peaks
from bench.measure.building import Built, built, left_by_model
from bench.measure.loads import Check, load_clock, rehearse, run_load
from bench.measure.peer_refusals import misfit
from bench.measure.terms import Terms, conversion_slot_bytes
from bench.meters import device_meter
from bench.meters.child import Job, RetainedMemory
from bench.meters.clock import LoadClock
from bench.meters.roofline import DISK, MEMORY, Roofline
from bench.meters.simulated.allocator_settings import AllocatorSettings
from bench.record.record import Fields, Record, ratio
from bench.strategies import KNOWN, STRATEGIES, Load, Strategy
from bench.strategies.reading.skeleton import compiled_modules, initialise, skeleton
from model.checkpoints import Checkpoint, Specification
from model.gpt2 import CONFIGS, REHEARSAL
from model.user.source import Source
from model.user.user_model import UserModel
from model.verification.outside_judge import Judge, judge_of
from model.verification.verify import check_model, check_structure

LIMIT_SECONDS = 60.0
LIMIT_BYTES_PER_SECOND = 20e6
LIMIT_TENSORS_PER_SECOND = 50.0

# How often a load is timed.
ROUNDS = 3

# What can be taken for a moment without asking for memory that others are about to use.
MOST_OF_FREE_MEMORY = 0.9


@dataclass(frozen=True)
class Case:
    """The names of one measurement; `planned`: nothing of it is real, peaks are counted.

    `own` is the user's model, which `size` is the name of, and `own_strategy` the user's loader; None: the suite's.
    `cast` is the dtype that floating-point weights end in, of `DTYPES`; "": the checkpoint's. `stand_in` is the memory
    of the stand-in for a GPU that `device` is; None: it is no stand-in.
    """

    strategy_name: str
    size: str
    device: str
    dtype: str
    planned: bool = False
    cache: str = "warm"
    own: UserModel | None = None
    own_strategy: Strategy | None = None
    cast: str = ""
    stand_in: str | None = None

    def __str__(self) -> str:
        return f"{self.strategy_name}-{self.size}-{self.device}"

    @property
    def row(self) -> str:
        """What the table calls it."""
        return self.strategy_name

    @property
    def strategy(self) -> Strategy:
        strategy = self._row.given(self.layout)
        return strategy.when_cast() if self.cast or (self.own and self.own.missing) else strategy

    @property
    def _row(self) -> Strategy:
        return self.own_strategy or KNOWN[self.strategy_name]

    @property
    def layout(self) -> str:
        """What the strategy is given: the layout of the user's checkpoint, if it loads that, or else its own."""
        source, row = self._source, self._row
        if source is None:
            return row.layout
        takes = row.any_layout or source.measured_layout in row.layouts
        if row.peer and source.is_plain and source.layout in row.peer.also.split():
            takes = row.peer.finds(source)
        return source.measured_layout if takes else row.layout

    @property
    def _source(self) -> Source | None:
        return self._model.source if self._model else None

    @property
    def specification(self) -> Specification:
        source, peer = self._source, self._row.peer
        lies_there = source is not None and source.is_plain and source.layout == self.layout
        copied = bool(lies_there and source and peer and not peer.finds(source))
        return Specification(self.size, self.dtype, self.layout, self._model, self._family, self.cast, copied=copied)

    @property
    def _family(self) -> str:
        """Whose GPT-2 it loads: there are libraries that load none but their own."""
        return self.strategy.peer.architecture if self.strategy.peer and not self.own else ""

    @property
    def _model(self) -> UserModel | None:
        """The user's: a plan reads nothing of the checkpoint that there is."""
        return replace(self.own, source=None) if self.own and self.planned else self.own

    @property
    def rehearsal(self) -> Specification:
        """What is loaded before: a loader of the user's may know no other model than the user's."""
        if self.own and self.own_strategy:
            return self.specification
        family = self.strategy.peer.architecture if self.strategy.peer else ""
        # What is loaded by the names of its files has those that it wants in its own layout.
        layout = self.strategy.layout if family else self.layout
        dtype = "float32" if self.own else self.dtype
        return Specification(REHEARSAL, dtype, layout, family=family, cast=self.cast)

    def bound_bytes(self, figure: str) -> int | None:
        """What theory says of a figure of the record; None where it says nothing."""
        expression = expected_peaks(self.strategy, self.device).get(figure)
        return None if expression is None else self.terms.peak_bound(figure, expression)

    @property
    def built(self) -> Built | None:
        """What building the user's model takes of the host, or building its skeleton, whichever the strategy does."""
        if self.own is None or not self.strategy.is_stated:
            return None
        beside = 0 if self.strategy.builds else self.specification.footprint.beside_bytes
        found = built(self.own, planned=self.planned, on_meta=not self.strategy.builds)
        # The bound of a load has these already.
        return replace(found, private_bytes=max(found.private_bytes - beside, 0))

    def left_by_model(self) -> RetainedMemory | None:
        """What the user's model leaves of memory with no strategy; a loader of the user's is rehearsed with it."""
        if self.own is None or not self.strategy.is_stated:
            return None
        where = {"planned": self.planned, "builds": self.strategy.builds, "asked": self._has_values}
        return left_by_model(self.own, self.device, **where)

    @property
    def terms(self) -> Terms:
        """What its bounds are computed from."""
        specification, built = self.specification, self.built
        footprint, saved = specification.footprint, specification.saved
        build_peak_bytes = built.peak_bytes if built else None
        if self.cast and self.own is None and self.strategy.builds:
            build_peak_bytes = saved.built_bytes
        return Terms(
            device=self.device,
            state_bytes=footprint.state_bytes,
            largest_tensor_bytes=footprint.largest_tensor_bytes,
            largest_file_bytes=saved.largest_file_bytes,
            checkpoint_bytes=saved.checkpoint_bytes,
            missing_bytes=footprint.state_bytes - saved.ends_bytes,
            largest_saved_bytes=saved.largest_bytes,
            converted_bytes=saved.converted_bytes,
            converted_to_bytes=saved.converted_to_bytes,
            mapped_bytes=saved.mapped_bytes,
            largest_converted_to_bytes=saved.largest_converted_to_bytes,
            largest_conversion_bytes=saved.largest_conversion_bytes,
            conversion_slot_bytes=conversion_slot_bytes(self.device, saved, footprint.beside_bytes),
            tensors=footprint.tensors,
            build_peak_bytes=build_peak_bytes,
            built_private_bytes=built.private_bytes if built else None,
            built_file_bytes=built.file_bytes if built else None,
            # Buffers that no checkpoint has: the suite's strategies give them their values.
            beside_bytes=footprint.beside_bytes if self.strategy.is_stated else None,
        )

    @property
    def why_not(self) -> str | None:
        """Why it cannot be measured here, in a line; None if it can, as far as that is known without trying."""
        peer = self.strategy.peer
        if peer is None:
            return None
        if reason := peer.why_not(self.device, planned=self.planned):
            return reason
        if self.cast and not self.strategy.takes("dtype"):
            return f"{self.strategy_name} takes no dtype to cast to: leave out --cast"
        if self.own and self.own.missing and not self.strategy.takes("missing"):
            return f"{self.strategy_name} takes no names that are missing: leave out --allow-missing"
        return misfit(self.own, self.strategy, self.specification) if self.own else None

    def shortage(self) -> str | None:
        """Which memory is too small for the load, in a line; None where there is enough of both."""
        if self.planned:
            return None
        for kind, takes, free in (
            ("host", self.bound_bytes("host_private_peak_bytes"), psutil.virtual_memory().available),
            ("device", self.bound_bytes("device_requested_peak_bytes"), device_meter(self.device).free_bytes()),
        ):
            if takes is not None and free is not None and takes > free:
                return f"takes {takes / 1e9:.1f} GB of {kind} memory, {free / 1e9:.1f} GB are free"
        return None

    @property
    def states_refusal(self) -> bool:
        """Whether the user's model keeps the strategy from loading it, by a property that its row in the table names.

        Or by being one of which there is no skeleton, where the strategy wants one.
        """
        return bool(self._obstacles(self.strategy))

    @property
    def remedy(self) -> str:
        """What to do where the strategy refuses the user's model: which of the suite's to use, or what to change."""
        able = self.able
        use = f"use {', '.join(able[:-1])}{' or ' if able[1:] else ''}{able[-1]}" if able else None
        changes = [OBSTACLES[one] for one in sorted(self._obstacles(self.strategy))]
        return ", or ".join(filter(None, (use, *changes)))

    @property
    def able(self) -> list[str]:
        """The strategies of the suite that nothing of the user's model keeps from loading it, by their rows."""
        return [name for name, strategy in STRATEGIES.items() if not self._obstacles(strategy)]

    def _obstacles(self, strategy: Strategy) -> set[str]:
        """What of the user's model, of `OBSTACLES`, keeps a strategy from loading it, as its row in the table says."""
        if self.own is None or strategy.is_own:
            return set()
        model = self.own.skeleton()
        found = set(properties_of(model)) & strategy.refused(self.device)
        if strategy.builds:
            return found
        if compiled_modules(model):
            return found | {"scripted"}
        return found | _obstacles_of_skeleton(self.own)

    def blank_record(self) -> Record:
        """A record with everything that is known before anything is measured."""
        state = self.specification.footprint.state_bytes
        return Record(
            **asdict(self.terms),
            strategy=self.strategy_name,
            loader=self.strategy.loader,
            size=self.size,
            model=self.own.factory.shown if self.own else None,
            state_digest=self.own.state_digest if self.own else None,
            layout=self.layout,
            dtype=self.dtype,
            cast=self.cast or None,
            stand_in=self.stand_in,
            planned=self.planned,
            cache=self.cache,
            limit=self.limit,
            ownership=self.ownership,
            first_use="weights" if self.own and self.own.asks is None else "logits",
            peer=self.strategy.peer.as_record() if self.strategy.peer else None,
            device_bound_ratio=ratio(self.bound_bytes("device_requested_peak_bytes"), state),
            host_bound_ratio=ratio(self.bound_bytes("host_private_peak_bytes"), state),
            host_file_bound_ratio=ratio(self.bound_bytes("host_file_peak_bytes"), state),
        )

    @property
    def ownership(self) -> str | None:
        """Where the weights end: in memory of their own, or in the pages of the file; None: nobody says."""
        if self.device == "cpu" and not self.strategy.file and not self.strategy.peer:
            return None
        # What is missing has memory of its own, and may be more than what is mapped.
        if self.device == "cpu" and self.specification.missing:
            return None
        # What is converted ends in memory of its own; what need not be stays in the pages of the file.
        in_file = self.strategy.file in {"S", "W"} and not (self.cast and self.specification.saved.converted)
        return "mapped" if self.device == "cpu" and in_file else "owned"

    @property
    def limit(self) -> str:
        """What is the best that the machine can do for such a load: one of `LIMITS`."""
        if self.cache == "cold":
            return DISK
        if self.device.startswith("cuda"):
            return "pinned"
        return "mapping" if self.ownership == "mapped" else MEMORY

    def limit_of(self, checkpoint: Checkpoint) -> Roofline:
        """The same, to be measured with this checkpoint."""
        takes, state = self.bound_bytes("host_private_peak_bytes") or 0, self.specification.checkpoint_bytes
        if self.limit == MEMORY:
            # What the limit takes is free again before the load.
            takes = max(takes, state)
        elif self.limit == DISK:
            # The page cache takes as much beside the load.
            takes += state
        free = int(psutil.virtual_memory().available * MOST_OF_FREE_MEMORY)
        return Roofline(self.limit, checkpoint.files, torch.device(self.device), min(takes, free))

    @property
    def limit_seconds(self) -> float:
        """What one load may take before it is ended: a minute, and what a slow disk and many tensors need."""
        footprint = self.specification.footprint
        to_read = 0 if self.planned else self.specification.checkpoint_bytes
        return LIMIT_SECONDS + to_read / LIMIT_BYTES_PER_SECOND + footprint.tensors / LIMIT_TENSORS_PER_SECOND

    @property
    def rounds(self) -> int:
        """Number of timed loads: one on a stand-in, to run and check it."""
        return 1 if self.stand_in else ROUNDS

    def as_measured(self, times: Fields) -> Fields:
        """Return the times that are figures: none on a stand-in, whose times are not those of a GPU."""
        return {} if self.stand_in else times

    def clock(self, load: Load, checkpoint: Checkpoint, rehearsal: Checkpoint) -> Callable[[], LoadClock]:
        """Makes the clock that times `load`, in whichever process it is called."""
        rehearsed = self._rehearsed(load, rehearsal)
        return partial(load_clock, self.device, load, checkpoint, self.limit_of(checkpoint), rehearsed)

    def job(
        self,
        load: Load,
        checkpoint: Checkpoint,
        rehearsal: Checkpoint,
        *,
        explained: bool = False,
        settings: AllocatorSettings | None = None,
    ) -> Job:
        """What a child has to do to measure `load`, as this case's strategy; see `device_meter` for the options."""
        meter = partial(
            device_meter, self.device, self.strategy.source, settings, planned=self.planned, explained=explained
        )
        return Job(
            meter=meter,
            rehearse=self._rehearsed(load, rehearsal),
            load=partial(run_load, load, checkpoint),
            # Without values there are no logits. What the user's model computes with is not the load's to answer for.
            use=self.specification.architecture.outputs if self._has_values and not self.own else None,
            check=partial(self._check, checkpoint, meter().device),
            backend=self.strategy.peer.backend if self.strategy.peer else None,
            judge=self.judge(checkpoint),
        )

    def judge(self, checkpoint: Checkpoint) -> Judge | None:
        """Return what judges a load from outside its process; None where there are no values, or nobody can."""
        return judge_of(checkpoint, torch.device(self.device)) if self._has_values else None

    @property
    def _has_values(self) -> bool:
        """False where the device is simulated or the load planned: tensors have sizes only."""
        return self.device != "sim" and not self.planned

    @property
    def _check(self) -> Check:
        return check_model if self._has_values else check_structure

    def _rehearsed(self, load: Load, rehearsal: Checkpoint) -> Callable[[torch.device], None]:
        """What the process of a load does first."""
        # The host loads some when it first computes in another dtype than float32.
        loads_kernels = self._has_values and (self.device != "cpu" or (self.cast or self.dtype) != "float32")
        return partial(
            rehearse,
            load,
            rehearsal,
            self._check,
            CONFIGS[self.size] if loads_kernels and not self.own else None,
            self.specification.build if self.own else None,
        )


@cache
def _obstacles_of_skeleton(own: UserModel) -> frozenset[str]:
    """Return what keeps a strategy from a skeleton of the user's model, or from starting what its checkpoint lacks."""
    obstacle = "skeleton"
    try:
        model = skeleton(own.build)
        obstacle = "uninitialised"
        initialise(model, own.missing, "meta")
    except Exception:  # noqa: BLE001 - whatever the model's code raises
        return frozenset((obstacle,))
    return frozenset()


@dataclass(frozen=True)
class RooflineCase(Case):
    """What the machine can do at best for the loads of a strategy, and of others that have the same limit."""

    def __str__(self) -> str:
        return f"{self.limit}-{self.size}-{self.device}"

    @property
    def row(self) -> str:
        return f"limit: {self.limit}"

    def bound_bytes(self, figure: str) -> int | None:
        """What is read takes memory of its own; nothing else is taken."""
        return self.specification.checkpoint_bytes if figure == "host_private_peak_bytes" else None

    def blank_record(self) -> Record:
        known = (
            *("model", "state_digest", "size", "layout", "dtype", "cast", "device", "cache"),
            *("state_bytes", "largest_tensor_bytes", "checkpoint_bytes", "limit"),
        )
        whole = super().blank_record()
        return Record(**{name: whole.value(name) for name in known})
