"""What theory says a load takes, and whether it did.

Its terms are S, the bytes of the model's state dict, L, those of its largest tensor, F, those of the tensors in the
checkpoint's largest file, and R, a ring buffer. A cast, or a part, adds those of `CAST_TERMS`.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from bench.meters import kind_of
from bench.record.record import Record
from bench.strategies import STATED_DEVICE_RATIO, Strategy
from bench.strategies.reading.memory import CONVERTED_BYTES, SLOTS, ring_bytes
from bench.strategies.reading.threads import PAGE_BYTES
from model.byte_sizes import MB, megabytes
from model.checkpoints.footprint import SavedFootprint

# What is in the checkpoint, and what of it is converted: the terms of loads that cast, or of a part, by the fields of a
# record. S and L are of what weights end in.
CAST_TERMS = {
    "C": "checkpoint_bytes",
    # What is in the model and not in the checkpoint, as it ends.
    "M": "missing_bytes",
    "K": "largest_saved_bytes",
    "X": "converted_bytes",
    "Y": "converted_to_bytes",
    # The largest tensor of those that are converted, as it ends.
    "V": "largest_converted_to_bytes",
    # The pages of the files that are mapped on the host at once: of a file that is converted as a whole none stays.
    "W": "mapped_bytes",
    # One tensor as it is saved, and beside it as it ends if it is converted.
    "P": "largest_conversion_bytes",
    # What a stream is converted in, beyond the buffers that are in no state dict: they come when that is over.
    "D": "conversion_slot_bytes",
}
_TERM = re.compile(rf"(\d+(?:\.\d+)?)?\s*\*?\s*([SLRF{''.join(CAST_TERMS)}])(?:\s*/\s*N)?|0")

# R: the page-locked memory that a strategy streams through, no more of it than the model takes.
RING_BYTES = 64 * 2**20

# What a GPU's libraries load late, 1 to 2 MB and 0.2 % of S beyond the bound; and Python's objects and the books of a
# simulated device, 3 to 6 KB a tensor with 4,000 tensors, and with 20,000.
HOST_SLACK_BYTES = 8 * 2**20
HOST_SLACK_OF_STATE = 0.02
HOST_SLACK_BYTES_PER_TENSOR = 8 * 2**10

EXACT = ("device_requested_peak_bytes", "host_pinned_peak_bytes")


def host_slack_bytes(state_bytes: int, tensors: int) -> int:
    """How far a peak of host memory may be from its bound, for a model of so many bytes and tensors."""
    return max(HOST_SLACK_BYTES, HOST_SLACK_BYTES_PER_TENSOR * tensors) + int(HOST_SLACK_OF_STATE * state_bytes)


def conversion_slot_bytes(device: str, saved: SavedFootprint, beside_bytes: int) -> int:
    """D: what a stream is converted in, beyond the buffers beside the weights, which come when that is over.

    On a device it is a slot of the ring, or the largest tensor that is converted; on the host it is a ring of its own.
    """
    if kind_of(device).is_host:
        return ring_bytes(CONVERTED_BYTES, saved.checkpoint_bytes) if saved.converted else 0
    slot = ring_bytes(RING_BYTES, saved.checkpoint_bytes) // SLOTS // PAGE_BYTES * PAGE_BYTES
    return max(min(slot, saved.largest_converted_bytes) - beside_bytes, 0)


def bound_bytes(
    expression: str,
    state_bytes: int,
    largest_tensor_bytes: int,
    largest_file_bytes: int | None = None,
    cast: Record | None = None,
) -> int:
    """The bytes that a bound like `2S`, `S + L`, `1.5 S / N` or `0` means for one model; N, the processes, is 1.

    `largest_file_bytes` is F, and None where one file holds all. `cast` has the fields of `CAST_TERMS`; without a cast
    the checkpoint has what the model has. Raises `ValueError` if the expression is no sum of multiples of such terms.
    """
    known = {term: cast.value(field) if cast else None for term, field in CAST_TERMS.items()}
    without = {"C": state_bytes, "W": state_bytes, "K": largest_tensor_bytes, "P": largest_tensor_bytes}
    values = {term: without.get(term, 0) if count is None else count for term, count in known.items()} | {
        "S": state_bytes,
        "L": largest_tensor_bytes,
        "F": state_bytes if largest_file_bytes is None else largest_file_bytes,
    }
    values["R"] = ring_bytes(RING_BYTES, values["C"])
    total = 0
    for term in expression.split("+"):
        match = _TERM.fullmatch(term.strip())
        if match is None:
            raise ValueError(f"{expression!r} is no bound: give a sum of multiples of S, L and R, as in 2S or S + L")
        count, symbol = match.groups()
        total += int(Fraction(count or 1) * values[symbol]) if symbol else 0
    return total


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
        """What is wrong, in one line; None if the peak is the bound, give or take the slack."""
        off = self.measured - self.bound
        if -self.slack - self.unseen <= off <= self.slack:
            return None
        side = "above" if off > 0 else "below"
        doubt = "" if off > 0 else "; the meter missed it, or the strategy takes less than its bound says"
        figure = self.figure.removesuffix("_bytes").replace("_", " ")
        return (
            f"{figure} is {self._shown(self.measured)}: {self._shown(abs(off))} {side} its bound "
            f"{self.expression} = {self._shown(self.bound)}, where {self.slack / MB:.1f} MB are slack{doubt}"
        )

    def _shown(self, count: int) -> str:
        return f"{count / self.state:.2f}x ({megabytes(count)})"


def expected_peaks(strategy: Strategy, device: str) -> dict[str, str]:
    """The bound of every figure of a record that theory, or the user, speaks of, for a load to `device`."""
    if strategy.peer:
        # Where the weights end is known of it, and nothing else.
        said = {"host_file_peak_bytes": strategy.file} if kind_of(device).is_host else {}
    elif kind_of(device).is_host:
        said = {"host_private_peak_bytes": strategy.one_pool, "host_file_peak_bytes": strategy.file}
    else:
        said = {
            "device_requested_peak_bytes": strategy.device,
            "host_private_peak_bytes": strategy.host,
            "host_file_peak_bytes": strategy.file_moved or strategy.file,
            "host_pinned_peak_bytes": strategy.pinned,
        }
    return {figure: expression for figure, expression in said.items() if expression}


def peak_checks(strategy: Strategy, record: Record) -> list[PeakCheck]:
    """A gate for every peak of `record` that was measured and that theory speaks of."""
    state = record.state_bytes
    return [
        PeakCheck(
            figure=figure,
            expression=expression,
            measured=record.value(figure),
            bound=peak_bound(figure, expression, record),
            # What is asked of an allocator is exact.
            slack=0 if figure in EXACT else host_slack_bytes(state, record.tensors) + _left_by_building(figure, record),
            state=state,
            # What a user says is what it takes at most.
            unseen=peak_bound(figure, expression, record) if strategy.is_own else _unseen(figure, expression, record),
        )
        for figure, expression in expected_peaks(strategy, str(record.device)).items()
        if record.value(figure) is not None
    ]


# What building a model leaves of the host's memory once the model is deleted, by the peak that it is part of.
BUILT = {"host_private_peak_bytes": "built_private_bytes", "host_file_peak_bytes": "built_file_bytes"}


def peak_bound(figure: str, expression: str, record: Record) -> int:
    """The bytes that a bound of a peak means for the model and the load of a record.

    Buffers that are in no state dict are on the host first, and end where the weights end. A strategy that builds the
    model takes on the host what building takes, if that is more.
    """
    sizes = record.state_bytes, record.largest_tensor_bytes, record.largest_file_bytes
    bound = bound_bytes(expression, *sizes, record)
    holds_buffers = figure in ("host_private_peak_bytes", "device_requested_peak_bytes")
    bound += (record.beside_bytes or 0) if holds_buffers else 0
    return max(bound, record.build_peak_bytes or 0) if figure == "host_private_peak_bytes" else bound


def _left_by_building(figure: str, record: Record) -> int:
    """What a load that builds the model leaves as building does: libraries that are loaded, tables that are kept."""
    return (record.value(BUILT[figure]) or 0) if figure in BUILT else 0


def _unseen(figure: str, expression: str, record: Record) -> int:
    """What need not show: whether the kernel counts page-locked memory for the process is up to a GPU's driver.

    Nor does what a stream converts at once, where memory for what is missing is taken after that.
    """
    on_gpu = kind_of(str(record.device)).is_gpu
    pinned = (record.host_pinned_peak_bytes or 0) if on_gpu and figure == "host_private_peak_bytes" else 0
    converted = min(record.missing_bytes or 0, record.conversion_slot_bytes or 0) if "D" in expression else 0
    return pinned + converted


def peak_breaches(strategy: Strategy, record: Record) -> dict[str, str]:
    """Everything that is wrong with the peaks of `record`: the figure, and what is wrong with it in a line."""
    breaches = {gate.figure: gate.breach for gate in peak_checks(strategy, record)}
    breaches["device_peak_ratio"] = _stated_breach(strategy, record)
    return {figure: breach for figure, breach in breaches.items() if breach}


def _stated_breach(strategy: Strategy, record: Record) -> str | None:
    """What is wrong with a device peak that the notebook states as a ratio, where S and L allow that ratio."""
    stated, measured = STATED_DEVICE_RATIO.get(strategy.name), record.device_peak_ratio
    if stated is None or measured is None or (record.device_bound_ratio or 0) > stated or measured <= stated:
        return None
    return f"device peak is {measured:.2f}x, where {strategy.name} is stated to take at most {stated}x"
