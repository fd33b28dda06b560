"""One cell to be filled: which strategy is tried for which property on which device."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from bench.conformance.isolated_runner import IsolatedRunner
from bench.conformance.judge import BUILDS_ITS_OWN, CellStatus
from bench.conformance.properties import PROPERTIES
from bench.conformance.sweep import Cell, sweep
from bench.meters import kind_of
from bench.strategies import KNOWN, Strategy
from bench.strategies.peers import Peer

# What somebody may tolerate of a loader of their own.
BAD = (CellStatus.WRONG, CellStatus.DIED)

# From best to worst; and how many models find whatever there is to be found of a property.
RANKS = {outcome: rank for rank, outcome in enumerate(CellStatus)}
MANY = 50


@dataclass(frozen=True)
class ConformanceCase:
    """`is_tolerated`: the user has said that their loaders may be wrong in this."""

    strategy_name: str
    property_name: str
    device: str
    user_strategy: Strategy | None = None
    is_tolerated: bool = False

    def __str__(self) -> str:
        return f"{self.strategy_name}-{self.property_name}-{self.device}"

    @property
    def strategy(self) -> Strategy:
        return self.user_strategy or KNOWN[self.strategy_name]

    def cell(self, runner: IsolatedRunner, cells: Iterable[Cell]) -> Cell:
        """Try the models that hypothesis draws, after these cells. Raises `LoadFailed`.

        A loader that is not the suite's may do anything to its process: it gets one of its own.
        """
        if self.strategy.is_stated:
            return sweep(self.strategy, PROPERTIES[self.property_name], kind_of(self.device).torch_device(self.device))
        return runner.cell(self.strategy, self.property_name, self.device, shrinks=self.shrinks(cells))

    @property
    def skip_reason(self) -> str | None:
        """Return why it cannot be tried here, in a line; None if it can."""
        return self.strategy.peer.skip_reason(self.device) if self.strategy.peer else None

    def stop_reason(self, cells: Iterable[Cell]) -> str | None:
        """Return why a loader of the user's is tried no further after these cells, in a line; None: it is tried."""
        for cell in self._earlier(cells):
            if cell.outcome == CellStatus.DIED:
                return f"not tried, for with models of {cell.property} {cell.why}"
            if cell.outcome == CellStatus.REFUSED and cell.why.endswith(BUILDS_ITS_OWN):
                return f"not tried: {self.strategy_name} {BUILDS_ITS_OWN}"
        return None

    def shrinks(self, cells: Iterable[Cell]) -> bool:
        """Tell whether to look for the smallest model that comes back wrong: for a loader of the user's once."""
        return not self.is_tolerated and not any(cell.outcome == CellStatus.WRONG for cell in self._earlier(cells))

    def _earlier(self, cells: Iterable[Cell]) -> Iterable[Cell]:
        return (cell for cell in cells if cell.is_own and cell.strategy == self.strategy_name)

    def tolerated(self, cell: Cell) -> Cell:
        """Return the cell as it is reported."""
        tolerated = self.is_tolerated and cell.is_own and cell.outcome in BAD
        return replace(cell, outcome=CellStatus.TOLERATED) if tolerated else cell

    def breach(self, cell: Cell) -> str | None:
        """Return the fault in a few lines; None where refusals are stated and name a tensor.

        A loader of the user's is judged by the user's model: what it does with others is a warning. That of another
        project may be wrong where its row says so.
        """
        if self.strategy.is_users:
            return None
        if self.strategy.peer:
            return self._change(cell, self.strategy.peer)
        stated = self._states_refusal
        if cell.outcome == CellStatus.WRONG:
            wrong = "silently wrong"
        elif cell.outcome == CellStatus.PASSED and stated:
            return f"{self}: passed, where its row in the table of strategies says that it refuses"
        elif cell.outcome == CellStatus.REFUSED and not stated:
            wrong = "refused, of which its row in the table of strategies says nothing"
        elif not cell.named:
            wrong = "refused without the name of a tensor"
        else:
            return None
        return f"{self}: {wrong}\n{cell.why}\nThe smallest model: {cell.example}"

    def _change(self, cell: Cell, peer: Peer) -> str | None:
        """Return where a loader of another project differs from its row in the table; None where it does not.

        A few models may miss a refusal or a wrong load; many do not.
        """
        stated = self._stated_of(peer)
        if RANKS[cell.outcome] > RANKS[stated]:
            detail = f"\n{cell.why}\nThe smallest model: {cell.example}"
        elif RANKS[cell.outcome] < RANKS[stated] and cell.examples >= MANY:
            detail = f" with {cell.examples} models"
        else:
            return None
        return f"{self}: {cell.outcome}, where its row in the table of strategies says {stated}{detail}"

    def _stated_of(self, peer: Peer) -> CellStatus:
        if self.property_name in peer.dies.split():
            return CellStatus.DIED
        if self.property_name in peer.wrong.split():
            return CellStatus.WRONG
        return CellStatus.REFUSED if self._states_refusal else CellStatus.PASSED

    @property
    def _states_refusal(self) -> bool:
        """True if the row of the strategy names the property, or the checkpoint does not fit the model."""
        refused = self.strategy.refused(kind_of(self.device).torch_type)
        return self.property_name in refused or not PROPERTIES[self.property_name].fits
