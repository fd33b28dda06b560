"""Fields of a record: their meaning, their columns in tables, and how runs are compared by them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.record.formats import Format
from bench.record.kinds import NUMBER, POSITIVE, SIGNED, TEXT, Kind, nullable
from model.byte_sizes import binary_size

# What a look at the host's memory may miss or add, and what Python's own objects take differently in each run: with
# tiny models up to 0.6 MiB were seen, with larger ones up to 2 MB.
HOST_SLACK_BYTES = 4 * 2**20

DEVICE, HOST = "device", "host"


@dataclass(frozen=True)
class Column:
    """A column of a table: its short heading, and its title where there is room; `{unit}` in them is that of the table.

    In a narrow terminal the columns with the highest `spare` are left out first; 0: never. `about` explains it to
    readers of the table; empty: as its field does. `budget` names the field of the memory that was given for it.
    """

    heading: str
    title: str
    text: Format
    spare: int = 0
    about: str = ""
    budget: str = ""


@dataclass(frozen=True)
class Peak:
    """A peak of memory, on the `place` `DEVICE` or `HOST`: what kind of memory it is of.

    `ratio` names its field as a multiple of S, `bound` the field of its bound, also a ratio, and `timeline` the series
    of a timeline that it is the highest of. Sharded loads record the highest peak of any rank.
    """

    place: str
    kind: str
    ratio: str | None = None
    bound: str | None = None
    timeline: str | None = None
    exact: bool = False


@dataclass(frozen=True)
class Compared:
    """Comparison of runs by a figure. Figures in bytes differ by chance by `slack_bytes` at most.

    `anywhere`: it is the same on every machine, whatever is installed there. `of_model`: no load changes it.
    `simulated` is the fraction by which a simulated load may be off; None: it is not simulated.
    """

    anywhere: bool = False
    of_model: bool = False
    slack_bytes: int = 0
    simulated: float | None = None


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field of `Record`, by the name that it has in JSON.

    `key`: later runs tell benchmarks apart by it, or say something of it. `charted`: pages show it over all runs.
    `drawn`: pages draw it, and do not print it. `of_a_rank`: sharded loads record it for each rank too, and as
    `highest` the highest of any.
    """

    name: str = ""
    about: str
    kind: Kind
    key: bool = False
    charted: bool = False
    drawn: bool = False
    peak: Peak | None = None
    compared: Compared | None = None
    column: Column | None = None
    sharded: Sequence[Column] = ()
    of_a_rank: bool = False
    highest: bool = False

    @property
    def is_seconds(self) -> bool:
        return self.name.endswith("_seconds")

    @property
    def exact(self) -> bool:
        """True if it is a peak that is known to the byte."""
        return self.peak is not None and self.peak.exact

    @property
    def anywhere(self) -> bool:
        """True if it is the same on every machine."""
        return self.compared is not None and self.compared.anywhere

    @property
    def title(self) -> str:
        """The name as people say it: `device requested peak`."""
        return title(self.name)

    @property
    def lasts(self) -> bool:
        """True if later runs read it."""
        return self.key or self.compared is not None

    def slack(self, *, planned: bool) -> int:
        """Return by how many bytes it may differ by chance: 0 in a plan, which counts tensors."""
        return 0 if planned or self.compared is None else self.compared.slack_bytes


def title(name: str) -> str:
    """Return what people call a figure."""
    return name.removesuffix("_bytes").removesuffix("_seconds").replace("_", " ")


def format_figure(name: str, value: float | None) -> str:
    """Write a figure with its unit, in four digits or so: differences of a percent are to be seen."""
    if value is None:
        return "-"
    if name.endswith("_seconds"):
        return f"{value:.3f} s"
    return binary_size(value, 3, few=0.1)


def declared(about: str, kind: Kind, *, default: Any = None, **more: Any) -> Any:
    """Declare a field of a dataclass; see `Field` for `more`."""
    return field(default=default, metadata={"field": Field(about=about, kind=kind, **more)})


def text(about: str, **more: Any) -> Any:
    return declared(about, nullable(TEXT), **more)


def number(about: str, **more: Any) -> Any:
    """Declare a number that is 0 or more."""
    return declared(about, nullable(NUMBER), **more)


def signed(about: str, **more: Any) -> Any:
    """Declare a number that may be negative: what a load holds above a level before it."""
    return declared(about, nullable(SIGNED), **more)


def positive(about: str, **more: Any) -> Any:
    """Declare a number above 0: history takes its logarithm."""
    return declared(about, nullable(POSITIVE), **more)


def peak(where: Peak, about: str, **more: Any) -> Any:
    """Declare a peak in bytes."""
    return number(about, **{"peak": where, "of_a_rank": True, "highest": True} | more)
