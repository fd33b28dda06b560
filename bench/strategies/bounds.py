"""What theory says a load takes, in S, the model's state bytes, and L, its largest tensor's; and whether it did."""

import re
from dataclasses import dataclass

from bench.history.record import Record
from bench.strategies import STATED_DEVICE_RATIO, Strategy

_TERM = re.compile(r"(\d*)([SL])|0")

# Python's objects add some KB a tensor, and a GPU's libraries what they load late. Seen beyond the bound: 1 to 2 MB
# and 0.2 % of S.
HOST_SLACK_BYTES = 8 * 2**20
HOST_SLACK_OF_STATE = 0.02


def bound_bytes(expression: str, state_bytes: int, largest_tensor_bytes: int) -> int:
    """The bytes that a bound like `2S`, `S + L` or `0` means for one model.

    Raises `ValueError` if it is no sum of multiples of S and L.
    """
    values = {"S": state_bytes, "L": largest_tensor_bytes}
    total = 0
    for term in expression.split("+"):
        match = _TERM.fullmatch(term.strip())
        if match is None:
            raise ValueError(f"{expression!r} is no bound: give a sum of multiples of S and L, as in 2S or S + L")
        count, symbol = match.groups()
        total += int(count or 1) * values[symbol] if symbol else 0
    return total


@dataclass(frozen=True)
class Gate:
    """A peak of a load held against what theory says of it, from both sides. All numbers are bytes.

    A peak that stays below its bound means a broken meter, or a bound that is not the strategy's.
    """

    figure: str
    expression: str
    measured: int
    bound: int
    slack: int
    state: int

    @property
    def breach(self) -> str | None:
        """What is wrong, in one line; None if the peak is the bound, give or take the slack."""
        off = self.measured - self.bound
        if abs(off) <= self.slack:
            return None
        side = "above" if off > 0 else "below"
        doubt = "" if off > 0 else "; the meter missed it, or the strategy takes less than its bound says"
        figure = self.figure.removesuffix("_bytes").replace("_", " ")
        return (
            f"{figure} is {self._shown(self.measured)}: {self._shown(abs(off))} {side} its bound "
            f"{self.expression} = {self._shown(self.bound)}, where {self.slack / 1e6:.1f} MB are slack{doubt}"
        )

    def _shown(self, count: int) -> str:
        return f"{count / self.state:.2f}x ({count / 1e6:,.1f} MB)"


def expected_peaks(strategy: Strategy, device: str) -> dict[str, str]:
    """The bound of every figure of a record that theory speaks of, for a load to `device`."""
    if device == "cpu":
        return {"host_private_peak_bytes": strategy.one_pool, "host_file_peak_bytes": strategy.file}
    return {
        "device_requested_peak_bytes": strategy.device,
        "host_private_peak_bytes": strategy.host,
        "host_file_peak_bytes": strategy.file,
    }


def peak_gates(strategy: Strategy, record: Record) -> list[Gate]:
    """A gate for every peak of `record` that was measured and that theory speaks of."""
    state, largest = record["state_bytes"], record["largest_tensor_bytes"]
    return [
        Gate(
            figure=figure,
            expression=expression,
            measured=record[figure],
            bound=bound_bytes(expression, state, largest),
            # What a device's tensors ask for is exact.
            slack=0 if figure.startswith("device") else HOST_SLACK_BYTES + int(HOST_SLACK_OF_STATE * state),
            state=state,
        )
        for figure, expression in expected_peaks(strategy, record["device"]).items()
        if record[figure] is not None
    ]


def peak_breaches(strategy: Strategy, record: Record) -> dict[str, str]:
    """Everything that is wrong with the peaks of `record`: the figure, and what is wrong with it in a line."""
    breaches = {gate.figure: gate.breach for gate in peak_gates(strategy, record)}
    breaches["device_peak_ratio"] = _stated_breach(strategy, record)
    return {figure: breach for figure, breach in breaches.items() if breach}


def _stated_breach(strategy: Strategy, record: Record) -> str | None:
    """What is wrong with a device peak that the notebook states as a ratio, where S and L allow that ratio."""
    stated, measured = STATED_DEVICE_RATIO.get(strategy.name), record["device_peak_ratio"]
    if stated is None or measured is None or record["device_bound_ratio"] > stated or measured <= stated:
        return None
    return f"device peak is {measured:.2f}x, where {strategy.name} is stated to take at most {stated}x"
