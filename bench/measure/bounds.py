"""Comparison of a load's peaks with their bounds."""

from collections.abc import Mapping
from dataclasses import dataclass

from bench.measure.terms import Terms, Theory
from bench.meters import kind_of
from bench.record.record import FIELDS, Record
from bench.strategies import STATED_DEVICE_RATIO, Strategy


@dataclass(frozen=True)
class PeakCheck:
    """A peak of a load held against what theory says of it, from both sides. All numbers are bytes.

    A peak that stays below its bound means a broken meter, or a bound that is not the strategy's. `unseen` bytes of the
    bound need not show.
    """

    figure: str
    expression: str
    measured: int
    bound: int
    slack: int
    state: int
    unseen: int = 0

    @property
    def breach(self) -> str | None:
        """The error in one line; None if the peak is the bound, give or take the slack."""
        off = self.measured - self.bound
        if -self.slack - self.unseen <= off <= self.slack:
            return None
        side = "above" if off > 0 else "below"
        doubt = "" if off > 0 else ": the meter missed it, or the bound is too large"
        figure = self.figure.removesuffix("_bytes").replace("_", " ")
        return (
            f"{figure} is {self._format(self.measured)}, which is {self._format(abs(off))} {side} its bound "
            f"{self.expression} = {self._format(self.bound)}; the slack is {self.slack / 1e6:.1f} MB{doubt}"
        )

    def _format(self, count: int) -> str:
        return f"{count / self.state:.2f}x ({count / 1e6:,.1f} MB)"


def peak_checks(strategy: Strategy, record: Record, theory: Theory | None = None) -> list[PeakCheck]:
    """Return a check for every peak of `record` that was measured and that theory speaks of.

    Without a `theory` its terms are those of the record, which is of one process.
    """
    terms = theory or Terms.of(record)
    found = []
    for figure, expression in strategy.bounds.of_peaks(on_host=kind_of(str(record.device)).is_host).items():
        measured = record.value(figure)
        if measured is None:
            continue
        bound, exact = terms.peak_bound(figure, expression), FIELDS[figure].exact
        # What a user says is what it takes at most.
        unseen = bound if strategy.is_users else terms.unseen_bytes(expression, figure, record)
        slack = 0 if exact else terms.slack_bytes(figure, record)
        found.append(PeakCheck(figure, expression, measured, bound, slack, terms.state_bytes, unseen))
    return found


def peak_breaches(strategy: Strategy, record: Record, theory: Theory | None = None) -> Mapping[str, str]:
    """Return everything that is wrong with the peaks of `record`: the figure, and what is wrong with it in a line."""
    breaches = {check.figure: check.breach for check in peak_checks(strategy, record, theory)}
    breaches["device_peak_ratio"] = _stated_breach(strategy, record)
    return {figure: breach for figure, breach in breaches.items() if breach}


def _stated_breach(strategy: Strategy, record: Record) -> str | None:
    """Return what is wrong with a device peak that the notebook states as a ratio, where S and L allow that ratio."""
    stated, measured = STATED_DEVICE_RATIO.get(strategy.name), record.device_peak_ratio
    if stated is None or measured is None or (record.device_bound_ratio or 0) > stated or measured <= stated:
        return None
    return f"device peak is {measured:.2f}x, above the {stated}x that is stated for {strategy.name}"
