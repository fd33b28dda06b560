"""Checks of a metered load, by one process or by many ranks: a table of them, in order.

A check is a function that takes a `MeteredProcess` and returns its problems, and a row of `CHECKS`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple, Protocol, TypeVar

from bench.measure.bounds import peak_breaches
from bench.measure.case import Case
from bench.measure.expected import left_without_strategy
from bench.measure.leaks import leaks
from bench.measure.terms import Theory
from bench.meters.allocations import Alive
from bench.meters.measure import Measurement
from bench.record.record import Fields, Record

Measured = TypeVar("Measured")

# Holds a record against history: the figures that grew, and why that fails, in a line each.
Growth = Callable[[Record], Mapping[str, str]]


class NothingTold(Exception):
    """The system does not tell any of the peaks that theory speaks of; the message is that in a line."""


class FailedCheck(NamedTuple):
    """An error in a line. `figure` is the field of the record that is wrong; None: there is none."""

    message: str
    figure: str | None = None


@dataclass(frozen=True)
class MeteredProcess:
    """The load of one process, or of one `rank`: its record, its measurement, and the sizes that theory goes by."""

    case: Case
    record: Record
    measurement: Measurement
    theory: Theory
    rank: int | None = None


@dataclass(frozen=True)
class Findings:
    """Problems of a load, the figures that grew, and what was alive at its peaks, as far as that is known."""

    problems: Sequence[FailedCheck] = ()
    grown: Sequence[FailedCheck] = ()
    alive: Alive | None = None


def wrong_peaks(process: MeteredProcess) -> Iterable[FailedCheck]:
    """Return the peaks that are not what theory says."""
    breaches = peak_breaches(process.case.strategy, process.record, process.theory)
    return [FailedCheck(message, figure) for figure, message in breaches.items()]


def leaked(process: MeteredProcess) -> Iterable[FailedCheck]:
    """Return what is left behind. What loaders of other projects keep is theirs to say: it is shown."""
    kept, record = process.measurement.kept, process.record
    if process.case.strategy.peer or not leaks(kept, record):
        return []
    # The strategy is to blame for what the model does not leave by itself.
    return map(FailedCheck, leaks(kept, record, left_without_strategy(process.case)))


Check = Callable[[MeteredProcess], Iterable[FailedCheck]]

CHECKS: Sequence[Check] = (wrong_peaks, leaked)


class Metered(Protocol[Measured]):
    """A load whose memory is metered, by one process or by many ranks."""

    def measure(self, *, explained: bool = False) -> Measured:
        """Load, in fresh processes. `explained`: find out what is alive at the peaks, which takes time and memory."""

    def alive(self, measured: Measured) -> Alive:
        """Return what was alive at the peaks, as far as that is known."""

    def fields(self, measured: Measured, record: Record) -> Fields:
        """Return what was measured, as fields of a record."""

    def processes(self, measured: Measured, record: Record) -> Iterable[MeteredProcess]:
        """Return every load of one process that was measured."""


def findings(load: Metered[Measured], record: Record, measured: Measured, growth: Growth, *, explain: bool) -> Findings:
    """Fill in a record, and hold it against theory and history.

    If a figure is wrong or grew, or to `explain` is asked for, and nothing is known of what was alive, the load is done
    once more to know that: it has its price.
    """
    record.update(load.fields(measured, record))
    problems = _problems(load.processes(measured, record))
    grown = [FailedCheck(message, figure) for figure, message in growth(record).items()]
    alive = load.alive(measured)
    if not alive and (explain or grown or any(problem.figure for problem in problems)):
        alive = load.alive(load.measure(explained=True))
    if alive:
        record.alive_at_peak = {figure: [asdict(held) for held in holders] for figure, holders in alive.items()}
    return Findings(problems, grown, alive)


def _problems(processes: Iterable[MeteredProcess]) -> list[FailedCheck]:
    """Return the problems of all processes: what a check says of a figure is said of the first rank that has it."""
    processes, found = list(processes), list[FailedCheck]()
    for check in CHECKS:
        figures: set[str] = set()
        for process in processes:
            who = "" if process.rank is None else f"rank {process.rank}: "
            new = [one for one in check(process) if one.figure not in figures]
            found += [FailedCheck(f"{who}{one.message}", one.figure) for one in new]
            figures.update(one.figure for one in new if one.figure)
    return found
