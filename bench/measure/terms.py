"""Terms of bounds: the letters in the tables of strategies, and their values for a load."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Protocol

from bench.measure.expression import evaluate
from bench.meters import kind_of
from bench.record.record import Record
from bench.strategies.reading.memory import CONVERTED_BYTES, SLOTS, ring_bytes
from bench.strategies.reading.threads import PAGE_BYTES

# R: the page-locked memory that a strategy streams through, no more of it than passes through: C, or S/N of a rank.
RING_BYTES = 64 * 2**20

# The letters of a load by one process, and the fields of `Terms` that they stand for; `Record` has the same, and says
# what each is. N is 1: S/N is S.
OF_A_LOAD = {
    "S": "state_bytes",  # S and L are of what the weights end in.
    "L": "largest_tensor_bytes",
    "F": "largest_file_bytes",
    # Of casts, and of checkpoints that have a part of the model.
    "C": "checkpoint_bytes",
    "M": "missing_bytes",
    "K": "largest_saved_bytes",
    "X": "converted_bytes",
    "Y": "converted_to_bytes",
    "V": "largest_converted_to_bytes",
    "W": "mapped_bytes",
    "P": "largest_conversion_bytes",
    "D": "conversion_slot_bytes",
}
# The letters of one rank of N, and the fields of `Share`, which says what each is. S, L and R are as above; M is not.
OF_A_RANK = {
    "S": "state_bytes",
    "L": "largest_tensor_bytes",
    "S/N": "held_bytes",
    "B": "sent_bytes",
    "U": "unit_bytes",
    "T": "touched_bytes",
    "F": "file_touched_bytes",
    "M": "largest_pair_bytes",
    "V": "largest_made_bytes",
    # Of casts.
    "C": "checkpoint_bytes",
    "Y": "converted_to_bytes",
    "D": "conversion_slot_bytes",
}
# What letters stand for where nothing is cast, missing or in several files; 0 for the others.
WITHOUT = {"F": "S", "C": "S", "W": "S", "K": "L", "P": "L"}

# What a GPU's libraries load late, 1 to 2 MB and 0.2 % of S beyond the bound; and Python's objects and the books of a
# simulated device, 3 to 6 KB a tensor with 4,000 tensors, and with 20,000.
HOST_SLACK_BYTES = 8 * 2**20
HOST_SLACK_OF_STATE = 0.02
HOST_SLACK_BYTES_PER_TENSOR = 8 * 2**10

# What building a model leaves of the host's memory once the model is deleted, by the peak that it is part of.
BUILT = {"host_private_peak_bytes": "built_private_bytes", "host_file_peak_bytes": "built_file_bytes"}

HOLDING_BUFFERS = ("host_private_peak_bytes", "device_requested_peak_bytes")


def host_slack_bytes(state_bytes: int, tensors: int) -> int:
    """Return how far a peak of host memory may be from its bound, for a model of so many bytes and tensors."""
    return max(HOST_SLACK_BYTES, HOST_SLACK_BYTES_PER_TENSOR * tensors) + int(HOST_SLACK_OF_STATE * state_bytes)


class Theory(Protocol):
    """Sizes that say what one process takes for a load: `Terms`, and `Share` of a rank. All are bytes."""

    @property
    def state_bytes(self) -> int:
        """S."""

    def peak_bound(self, figure: str, expression: str) -> int:
        """Return what a bound of a peak allows at most."""

    def slack_bytes(self, figure: str, record: Record) -> int:
        """Return how far a peak of host memory may be from its bound."""

    def unseen_bytes(self, expression: str, figure: str, record: Record) -> int:
        """Return how much of a bound need not show."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The sizes of a load by one process, in bytes, under the names that they have in a `Record`; None: not known."""

    state_bytes: int
    largest_tensor_bytes: int
    largest_file_bytes: int | None = None
    tensors: int = 0
    checkpoint_bytes: int | None = None
    missing_bytes: int | None = None
    largest_saved_bytes: int | None = None
    converted_bytes: int | None = None
    converted_to_bytes: int | None = None
    mapped_bytes: int | None = None
    largest_converted_to_bytes: int | None = None
    largest_conversion_bytes: int | None = None
    conversion_slot_bytes: int | None = None
    build_peak_bytes: int | None = None
    built_private_bytes: int | None = None
    built_file_bytes: int | None = None
    beside_bytes: int | None = None

    @classmethod
    def of(cls, record: Record) -> "Terms":
        """Return those that a record holds."""
        return cls(**{one.name: getattr(record, one.name) for one in fields(cls)})

    def by_letter(self) -> Mapping[str, int]:
        """Return the value of every letter."""
        known = {letter: getattr(self, name) for letter, name in OF_A_LOAD.items()}
        values = {
            letter: (known[WITHOUT[letter]] if letter in WITHOUT else 0) if count is None else count
            for letter, count in known.items()
        }
        values["R"] = ring_bytes(RING_BYTES, values["C"])
        return values | {f"{letter}/N": count for letter, count in values.items()}

    def bound_bytes(self, expression: str) -> int:
        """Return the bytes that a bound means. Raises as `evaluate` does."""
        return evaluate(expression, self.by_letter())

    def peak_bound(self, figure: str, expression: str) -> int:
        """Return the bytes that a bound of a peak means.

        Buffers that are in no state dict are on the host first, and end where the weights end. A strategy that builds
        the model takes on the host what building takes, if that is more.
        """
        bound = self.bound_bytes(expression) + ((self.beside_bytes or 0) if figure in HOLDING_BUFFERS else 0)
        return max(bound, self.build_peak_bytes or 0) if figure == "host_private_peak_bytes" else bound

    def slack_bytes(self, figure: str, _record: Record) -> int:
        """Return how far a peak of host memory may be from its bound.

        A load that builds the model leaves what building leaves: libraries that are loaded, tables that are kept.
        """
        left = (getattr(self, BUILT[figure]) or 0) if figure in BUILT else 0
        return host_slack_bytes(self.state_bytes, self.tensors) + left

    def unseen_bytes(self, expression: str, figure: str, record: Record) -> int:
        """Return how much of a bound need not show.

        Whether the kernel counts page-locked memory for the process is up to a GPU's driver. What a stream converts at
        once need not show where memory for what is missing is taken after that.
        """
        on_gpu = kind_of(str(record.device)).is_gpu
        pinned = (record.host_pinned_peak_bytes or 0) if on_gpu and figure == "host_private_peak_bytes" else 0
        converted = min(self.missing_bytes or 0, self.conversion_slot_bytes or 0) if "D" in expression else 0
        return pinned + converted


def conversion_slot_bytes(
    checkpoint_bytes: int, largest_converted_bytes: int, *, on_host: bool, beside_bytes: int = 0
) -> int:
    """Return D: what a stream of so many bytes is converted in, and 0 where nothing is converted.

    On a device it is a slot of the ring, or the largest tensor that is converted, beyond the buffers beside the
    weights, which come when that is over; on the host it is a ring of its own.
    """
    if on_host:
        return ring_bytes(CONVERTED_BYTES, checkpoint_bytes) if largest_converted_bytes else 0
    slot = ring_bytes(RING_BYTES, checkpoint_bytes) // SLOTS // PAGE_BYTES * PAGE_BYTES
    return max(min(slot, largest_converted_bytes) - beside_bytes, 0)
