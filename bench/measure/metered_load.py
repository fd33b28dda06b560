"""A metered load by one process."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bench.measure.bounds import peak_checks
from bench.measure.case import Case
from bench.measure.checks import MeteredProcess, NothingTold
from bench.measure.jobs import load_job
from bench.measure.peak_fields import peaks
from bench.measure.terms import Terms
from bench.meters.allocations import Alive
from bench.meters.measure import Measurement, measure
from bench.meters.page_cache import evict
from bench.record.record import Fields, Record
from model.checkpoints.checkpoint import Checkpoint


@dataclass(frozen=True)
class MeteredLoad:
    """The load of a case; see `Metered`."""

    case: Case
    checkpoint: Checkpoint
    rehearsal: Checkpoint

    def prepare(self) -> None:
        """Bring the page cache into the state that the case wants. Raises `StillCached`."""
        if self.case.cache == "cold":
            evict(self.checkpoint.files)

    def measure(self, *, explained: bool = False) -> Measurement:
        """Load in a fresh process. Raises `LoadEnded`."""
        case, strategy = self.case, self.case.strategy
        # What the suite's own recipes keep is judged after one load; of others it is worth knowing whether it grows.
        again = not (strategy.is_stated or case.planned or explained)
        job = load_job(case, strategy.load, self.checkpoint, self.rehearsal, explained=explained)
        return measure(replace(job, again=again), case.timeout_seconds)

    def alive(self, measured: Measurement) -> Alive:
        return measured.alive

    def fields(self, measured: Measurement, record: Record) -> Fields:
        found = peaks(measured, record.state_bytes)
        if record.peer:
            found["peer"] = record.peer | {"backend": measured.kept.backend}
        return found

    def processes(self, measured: Measurement, record: Record) -> Iterator[MeteredProcess]:
        """Return the only one. Raises `NothingTold`."""
        if self.case.strategy.is_stated and not peak_checks(self.case.strategy, record):
            raise NothingTold(f"this system does not report the memory of a load to {self.case.device}")
        yield MeteredProcess(self.case, record, measured, Terms.of(record))
