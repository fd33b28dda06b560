"""A case: which strategy loads which checkpoint onto which device."""

from dataclasses import dataclass, replace

from bench.meters import kind_of
from bench.meters.device import DeviceKind
from bench.record.row_key import RowKey
from bench.strategies import KNOWN, Strategy
from model.checkpoints.specification import Specification
from model.gpt2 import REHEARSAL
from model.user.source import Source
from model.user.user_model import UserModel

TIMEOUT_SECONDS = 60.0
READ_BYTES_PER_SECOND = 20e6
TENSORS_PER_SECOND = 50.0

# How often a load is timed.
ROUNDS = 3


@dataclass(frozen=True)
class Case:
    """The names of one measurement; `planned`: nothing of it is real, peaks are counted.

    `user_model` is the user's, which `size` is the name of, and `user_strategy` the user's loader; None: the suite's.
    `cast` is the dtype that floating-point weights end in, of `DTYPES`; "": the checkpoint's. `stand_in` is the memory
    of the stand-in for a GPU that `device` is; None: it is no stand-in. `asked_layout` is the layout of `ALL_LAYOUTS`
    that the checkpoint is saved in; "": the strategy's own, or that of the user's checkpoint.

    Functions of a case are in other files: `expected.py`, `refusals.py`, and `jobs.py` for its measurement.
    """

    strategy_name: str
    size: str
    device: str
    dtype: str
    planned: bool = False
    cache: str = "warm"
    user_model: UserModel | None = None
    user_strategy: Strategy | None = None
    cast: str = ""
    stand_in: str | None = None
    asked_layout: str = ""

    def __str__(self) -> str:
        return "-".join(filter(None, (self.strategy_name, self.size, self.device, self.asked_layout)))

    @property
    def row_key(self) -> RowKey:
        """The row of the table that shows it."""
        return RowKey(self.strategy_name, self.size)

    @property
    def row(self) -> str:
        """The name of that row."""
        return self.row_key.name

    @property
    def strategy(self) -> Strategy:
        strategy = self._row.with_layout(self.layout)
        return strategy.partial() if self.cast or (self.user_model and self.user_model.missing) else strategy

    @property
    def _row(self) -> Strategy:
        return self.user_strategy or KNOWN[self.strategy_name]

    @property
    def layout(self) -> str:
        """The layout that was asked for; else that of the user's checkpoint, or the one that the strategy loads."""
        if self.asked_layout:
            return self.asked_layout
        source, row = self._source, self._row
        if source is None:
            return row.layout
        takes = row.any_layout or source.measured_layout in row.layouts
        if row.peer and source.is_plain and source.layout in row.peer.extra_layouts.split():
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
        """The library whose GPT-2 it loads: some load none but their own; "": the suite's."""
        return self.strategy.peer.architecture if self.strategy.peer and not self.user_model else ""

    @property
    def _model(self) -> UserModel | None:
        """The user's: a plan reads nothing of the checkpoint that there is."""
        return replace(self.user_model, source=None) if self.user_model and self.planned else self.user_model

    @property
    def rehearsal(self) -> Specification:
        """The checkpoint that is loaded before: a loader of the user's may know no other model than the user's."""
        if self.user_model and self.user_strategy:
            return self.specification
        family = self.strategy.peer.architecture if self.strategy.peer else ""
        # What is loaded by the names of its files has those that it wants in its own layout.
        layout = self.strategy.layout if family else self.layout
        dtype = "float32" if self.user_model else self.dtype
        return Specification(REHEARSAL, dtype, layout, family=family, cast=self.cast)

    @property
    def kind(self) -> DeviceKind:
        """The row of its device in the table of device kinds."""
        return kind_of(self.device)

    @property
    def has_values(self) -> bool:
        """False where the device is simulated or the load planned: tensors have sizes only."""
        return self.kind.has_values and not self.planned

    @property
    def rounds(self) -> int:
        """Number of timed loads: one on a stand-in, to run and check it."""
        return 1 if self.stand_in else ROUNDS

    @property
    def timeout_seconds(self) -> float:
        """The time that one load may take: a minute, and what a slow disk and many tensors need."""
        tensors = self.specification.footprint.tensors
        to_read = 0 if self.planned else self.specification.checkpoint_bytes
        return TIMEOUT_SECONDS + to_read / READ_BYTES_PER_SECOND + tensors / TENSORS_PER_SECOND
