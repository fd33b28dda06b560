"""Cases that measure the machine's own limit."""

from dataclasses import dataclass

from bench.measure.case import Case
from bench.measure.expected import blank_record, bound_bytes, roofline_kind
from bench.record.record import Record
from bench.record.row_key import RowKey


@dataclass(frozen=True)
class RooflineCase(Case):
    """The best that the machine can do for the loads of a strategy, and of others that have the same limit."""

    def __str__(self) -> str:
        return f"{roofline_kind(self)}-{self.size}-{self.device}"

    @property
    def row_key(self) -> RowKey:
        return RowKey(roofline_kind(self), self.size, roofline=True)


@bound_bytes.register
def _(case: RooflineCase, figure: str) -> int | None:
    """Return the memory of what is read; nothing else is taken."""
    return case.specification.checkpoint_bytes if figure == "host_private_peak_bytes" else None


@blank_record.register
def _(case: RooflineCase) -> Record:
    known = (
        *("model", "state_digest", "size", "layout", "dtype", "cast", "device", "cache"),
        *("state_bytes", "largest_tensor_bytes", "checkpoint_bytes", "limit"),
    )
    whole = blank_record.dispatch(Case)(case)
    return Record(**{name: whole.value(name) for name in known})
