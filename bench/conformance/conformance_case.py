"""One cell to be filled: which strategy is tried for which property on which device."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch

from bench.conformance.judge import BUILDS_ITS_OWN, CellStatus
from bench.conformance.properties import PROPERTIES
from bench.conformance.sweep import Cell, sweep
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

    def cell(self) -> Cell:
        """What comes of it, with the models that hypothesis draws."""
        return sweep(self.strategy, PROPERTIES[self.property_name], torch.device(self.device))

    @property
    def skip_reason(self) -> str | None:
        """Why it cannot be tried here, in a line; None if it can."""
        return self.strategy.peer.skip_reason(self.device) if self.strategy.peer else None

    def given_up(self, cells: Iterable[Cell]) -> str | None:
        """Why a loader of the user's is tried no further after these cells, in a line; None: it is tried."""
        for cell in self._earlier(cells):
            if cell.outcome == CellStatus.DIED:
                return f"not tried, for with models of {cell.property} {cell.why}"
            if cell.outcome == CellStatus.REFUSED and cell.why.endswith(BUILDS_ITS_OWN):
                return f"not tried: {self.strategy_name} {BUILDS_ITS_OWN}"
        return None

    def shrinks(self, cells: Iterable[Cell]) -> bool:
        """Whether the smallest model is looked for that comes back wrong: of a loader of the user's once."""
        return not self.is_tolerated and not any(cell.outcome == CellStatus.WRONG for cell in self._earlier(cells))

    def _earlier(self, cells: Iterable[Cell]) -> Iterable[Cell]:
        return (cell for cell in cells if cell.is_own and cell.strategy == self.strategy_name)

    def tolerated(self, cell: Cell) -> Cell:
        """The cell as it is shown."""
        tolerated = self.is_tolerated and cell.is_own and cell.outcome in BAD
        return replace(cell, outcome=CellStatus.TOLERATED) if tolerated else cell

    def breach(self, cell: Cell) -> str | None:
        """What is not as it should be, in a few lines; None where all is: refusals are stated, and name a tensor.

        A loader of the user's is judged by the user's model: what it does with others is a warning. That of another
        project may be wrong where its row says so.
        """
        if self.strategy.is_users:
            return None
        if self.strategy.peer:
            return self._change(cell, self.strategy.peer)
        stated = self.property_name in self.strategy.refused(self.device) or not PROPERTIES[self.property_name].fits
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
        """In what a loader of another project is not as its row in the table has it: as it was when that was written.

        A few models may miss what it refuses, or loads wrongly; many do not.
        """
        stated = self._stated_of(peer)
        if RANKS[cell.outcome] > RANKS[stated]:
            told = f"\n{cell.why}\nThe smallest model: {cell.example}"
        elif RANKS[cell.outcome] < RANKS[stated] and cell.examples >= MANY:
            told = f" with {cell.examples} models"
        else:
            return None
        return f"{self}: {cell.outcome}, where its row in the table of strategies says {stated}{told}"

    def _stated_of(self, peer: Peer) -> CellStatus:
        if self.property_name in peer.dies.split():
            return CellStatus.DIED
        if self.property_name in peer.wrong.split():
            return CellStatus.WRONG
        refused = self.property_name in self.strategy.refused(self.device)
        return CellStatus.REFUSED if refused or not PROPERTIES[self.property_name].fits else CellStatus.PASSED
