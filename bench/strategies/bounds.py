"""What theory says a load takes, in S, the model's state bytes, L, its largest tensor's, and R; and whether it did."""

import re
from dataclasses import dataclass
from fractions import Fraction

from bench.history.record import Record
from bench.strategies import STATED_DEVICE_RATIO, Strategy

_TERM = re.compile(r"(\d+(?:\.\d+)?)?\s*\*?\s*([SLR])(?:\s*/\s*N)?|0")

# R: the page-locked memory that a strategy streams through, no more of it than the model takes. It comes in powers of
# two.
RING_BYTES = 64 * 2**20

# Python's objects add some KB a tensor, and a GPU's libraries what they load late. Seen beyond the bound: 1 to 2 MB
# and 0.2 % of S.
HOST_SLACK_BYTES = 8 * 2**20
HOST_SLACK_OF_STATE = 0.02

EXACT = ("device_requested_peak_bytes", "host_pinned_peak_bytes")


def bound_bytes(expression: str, state_bytes: int, largest_tensor_bytes: int) -> int:
    """The bytes that a bound like `2S`, `S + L`, `1.5 S / N` or `0` means for one model; N, the processes, is 1.

    Raises `ValueError` if it is no sum of multiples of S, L and R.
    """
    ring = min(RING_BYTES, 2 ** (state_bytes - 1).bit_length())
    values = {"S": state_bytes, "L": largest_tensor_bytes, "R": ring}
    total = 0
    for term in expression.split("+"):
        match = _TERM.fullmatch(term.strip())
        if match is None:
            raise ValueError(f"{expression!r} is no bound: give a sum of multiples of S, L and R, as in 2S or S + L")
        count, symbol = match.groups()
        total += int(Fraction(count or 1) * values[symbol]) if symbol else 0
    return total


@dataclass(frozen=True)
class Gate:
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
        """What is wrong, in one line; None if the peak is the bound, give or take the slack."""
        off = self.measured - self.bound
        if -self.slack - self.unseen <= off <= self.slack:
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
    """The bound of every figure of a record that theory, or the user, speaks of, for a load to `device`."""
    if strategy.peer:
        # Where the weights end is known of it, and nothing else.
        said = {"host_file_peak_bytes": strategy.file} if device == "cpu" else {}
    elif device == "cpu":
        said = {"host_private_peak_bytes": strategy.one_pool, "host_file_peak_bytes": strategy.file}
    else:
        said = {
            "device_requested_peak_bytes": strategy.device,
            "host_private_peak_bytes": strategy.host,
            "host_file_peak_bytes": strategy.file,
            "host_pinned_peak_bytes": strategy.pinned,
        }
    return {figure: expression for figure, expression in said.items() if expression}


def peak_gates(strategy: Strategy, record: Record) -> list[Gate]:
    """A gate for every peak of `record` that was measured and that theory speaks of."""
    state = record["state_bytes"]
    return [
        Gate(
            figure=figure,
            expression=expression,
            measured=record[figure],
            bound=_bound(figure, expression, record),
            # What is asked of an allocator is exact.
            slack=0 if figure in EXACT else HOST_SLACK_BYTES + int(HOST_SLACK_OF_STATE * state),
            state=state,
            # What a user says is what it takes at most.
            unseen=_bound(figure, expression, record) if strategy.is_own else _unseen(figure, record),
        )
        for figure, expression in expected_peaks(strategy, record["device"]).items()
        if record[figure] is not None
    ]


def _bound(figure: str, expression: str, record: Record) -> int:
    bound = bound_bytes(expression, record["state_bytes"], record["largest_tensor_bytes"])
    built, beside = record.get("build_peak_bytes"), record.get("beside_bytes")
    return with_building(bound, figure, record["device"], built, beside)


def with_building(bound: int, figure: str, device: str, build_peak_bytes: int | None, beside_bytes: int | None) -> int:
    """The bound of a strategy that builds the model: it has buffers that are in no state dict, where the weights end.

    On the host it takes what building takes, if that is more.
    """
    where_weights_end = "host_private_peak_bytes" if device == "cpu" else "device_requested_peak_bytes"
    bound += (beside_bytes or 0) if figure == where_weights_end else 0
    return max(bound, build_peak_bytes or 0) if figure == "host_private_peak_bytes" else bound


def _unseen(figure: str, record: Record) -> int:
    """What need not show: whether the kernel counts page-locked memory for the process is up to a GPU's driver."""
    on_gpu = record["device"].startswith("cuda")
    return (record["host_pinned_peak_bytes"] or 0) if on_gpu and figure == "host_private_peak_bytes" else 0


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
