"""One cell to be filled: which strategy is tried for which property on which device."""

from dataclasses import dataclass

import torch

from bench.conformance.judge import Outcome
from bench.conformance.properties import PROPERTIES
from bench.conformance.sweep import Cell, sweep
from bench.strategies import STRATEGIES, Strategy


@dataclass(frozen=True)
class Trial:
    strategy_name: str
    property_name: str
    device: str
    own_strategy: Strategy | None = None

    def __str__(self) -> str:
        return f"{self.strategy_name}-{self.property_name}-{self.device}"

    @property
    def strategy(self) -> Strategy:
        return self.own_strategy or STRATEGIES[self.strategy_name]

    def cell(self) -> Cell:
        """What comes of it, with the models that hypothesis draws."""
        return sweep(self.strategy, PROPERTIES[self.property_name], torch.device(self.device))

    def breach(self, cell: Cell) -> str | None:
        """What is not as it should be, in a few lines; None where all is: refusals are stated, and name a tensor.

        Of a loader of the user's nothing is stated.
        """
        stated = self.property_name in self.strategy.refused(self.device) or not PROPERTIES[self.property_name].fits
        if cell.outcome == Outcome.WRONG:
            wrong = "silently wrong"
        elif self.strategy.is_own:
            return None
        elif cell.outcome == Outcome.PASSED and stated:
            return f"{self}: passed, where its row in the table of strategies says that it refuses"
        elif cell.outcome == Outcome.REFUSED and not stated:
            wrong = "refused, of which its row in the table of strategies says nothing"
        elif not cell.named:
            wrong = "refused without the name of a tensor"
        else:
            return None
        return f"{self}: {wrong}\n{cell.why}\nThe smallest model: {cell.example}"
