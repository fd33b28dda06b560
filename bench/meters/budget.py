"""Loads under hard memory limits: which fit, and how far the others got."""

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path

from bench.meters.cgroup import limited
from bench.meters.child import ChildStats, Job, LoadTrace, Ready, RetainedMemory, run
from bench.meters.devices import device_meter, kind_of
from bench.meters.host import HostMemory, bytes_read
from bench.meters.page_cache import evict
from bench.meters.process import Child, LoadDied, LoadFailed, child_process
from bench.meters.sampling import ReadMemory, sample_memory
from model.byte_sizes import GIB, MIB, short_size

# PyTorch's messages of exhausted device and host memory.
_ASKED = re.compile(r"Tried to allocate (\S+ \S+?)\.")
_TAKEN = re.compile(r"(\S+) (\S+) is allocated by PyTorch, and (\S+) (\S+) is reserved")
_NO_HOST_MEMORY = re.compile(r"^MemoryError|can't allocate memory|[Cc]annot allocate memory|ENOMEM")
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": MIB, "GiB": GIB}


@dataclass(frozen=True)
class Budget:
    """The most bytes that a load may take; None: as many as there are.

    `device_bytes` are those of the allocator's segments on the device, above the level before the load, until the load
    returns. `host_bytes` are all that its process holds and nobody can reclaim, what it held before the load included,
    a CUDA context too, until its first logits and its check are done.
    """

    device_bytes: int | None = None
    host_bytes: int | None = None

    def __bool__(self) -> bool:
        return self.device_bytes is not None or self.host_bytes is not None


@dataclass(frozen=True)
class BudgetOutcome:
    """The end of a load under a budget: it `fits`, or `failure_reason` tells how it ended ("": it fits).

    `empty_bytes` are the private bytes of its process before the load. `planned_bytes` are the private bytes that a
    plan counts beside those; None: the load was no plan, or did not return.
    """

    fits: bool
    failure_reason: str
    empty_bytes: int
    planned_bytes: int | None = None


@dataclass
class _Progress:
    """Progress of a load, seen from outside: bytes read from files or resident of mapped ones, and private bytes."""

    bytes_read: int = 0
    private_bytes: int = 0


class HostTooSmall(Exception):
    """A budget that is below the memory of a process that loads nothing; the message is one line."""


@dataclass(frozen=True)
class BudgetedLoad:
    """A load to run under budgets, the files of its checkpoint, and the bytes of each of its tensors, in order."""

    job: Job
    files: Sequence[Path]
    tensor_bytes: Sequence[int]
    limit_seconds: float

    def empty_bytes(self) -> int:
        """Return the private bytes of its process right before the load, with all imports of the model done."""
        with child_process(run, self.job, self.limit_seconds) as child:
            level = child.receive(Ready, child.deadline()).level
        return (level.private_bytes or 0) if level else 0

    def under(self, budget: Budget) -> BudgetOutcome:
        """Load under `budget`; the check of the weights and the first logits run under the host's budget too.

        Raises `NoCgroup` or `StillCached` where the host's memory cannot be limited, `HostTooSmall`, and `LoadFailed`,
        with the exception's own words, if anything raised that has nothing to do with memory.
        """
        job = replace(self.job, device_bytes=budget.device_bytes)
        with child_process(run, job, self.limit_seconds) as child:
            deadline = child.deadline()
            level = child.receive(Ready, deadline).level
            empty = (level.private_bytes or 0) if level else 0
            with ExitStack() as stack:
                group = None
                if budget.host_bytes is not None:
                    # Pages that others have cached are charged to them, and the load would have them for free.
                    evict(self.files)
                    group = stack.enter_context(limited(_room(budget.host_bytes, empty), child.pid))
                # Its group can be removed only when it is gone.
                stack.callback(child.end)
                progress = _Progress() if level else None
                child.connection.send("go")
                try:
                    if level and progress:
                        _watch(child, level, deadline, progress)
                    stats = child.receive(ChildStats, deadline)
                    for kind in (RetainedMemory, LoadTrace):
                        child.receive(kind, deadline)
                except LoadDied as died:
                    how = "killed" if group and group.has_killed() else died.timed_out
                    if not how:
                        raise
                    held = _of(empty + (progress.private_bytes if progress else 0), budget.host_bytes)
                    return BudgetOutcome(False, f"{how} at {held}{self._read(progress)}", empty)
                except LoadFailed as failed:
                    if (reason := _out_of_memory(str(failed), budget)) is None:
                        raise
                    return BudgetOutcome(False, f"{reason}{self._read(progress)}".removesuffix(","), empty)
        return BudgetOutcome(True, "", empty, None if level else stats.host.private_bytes)

    def _read(self, progress: _Progress | None) -> str:
        """Return the share of tensors that had been read, in words; "" for a plan, which reads none."""
        if progress is None:
            return ""
        read = bisect_right(list(accumulate(self.tensor_bytes)), progress.bytes_read)
        return f" after {100 * read / len(self.tensor_bytes):.0f} % of the tensors"


def empty_process_bytes(limit_seconds: float, device: str = "cpu") -> int:
    """Return the private bytes of a process that is ready to load something to a device, and has not begun.

    For one of CUDA it has a context, which takes some hundred MiB.
    """
    meter = partial(device_meter, device if kind_of(device).is_gpu else "cpu")
    job = Job(meter, _nothing, _nothing, None, _nothing)  # type: ignore[arg-type]
    return BudgetedLoad(job, (), (), limit_seconds).empty_bytes()


def _nothing(*_: object) -> None:
    pass


def smallest(fits: Callable[[int], bool], low: int, high: int, tolerance: int) -> int | None:
    """Return the smallest budget that a load fits into, at most `tolerance` bytes too large, by bisection.

    It does not fit into `low`; None: it does not fit into `high` either.
    """
    if not fits(high):
        return None
    while high - low > tolerance:
        middle = (low + high) // 2
        if fits(middle):
            high = middle
        else:
            low = middle
    return high


def _room(host_bytes: int, empty_bytes: int) -> int:
    """Return the bytes that are left for the load. Raises `HostTooSmall` if its process takes them all before it."""
    if host_bytes <= empty_bytes:
        raise HostTooSmall(too_small(host_bytes, empty_bytes))
    return host_bytes - empty_bytes


def too_small(host_bytes: int, empty_bytes: int, device: str = "cpu", processes: int = 1) -> str:
    """Return the message for a budget that leaves nothing to load to a device with; so many processes share it."""
    idle = "an idle process" if processes == 1 else f"{processes} idle processes"
    context = " with a CUDA context" if kind_of(device).is_gpu else ""
    least = empty_bytes // MIB + 1
    return (
        f"{short_size(host_bytes)} is not above the {empty_bytes / MIB:,.0f} MiB of {idle}{context}; give at least "
        f"{least:,} MiB"
    )


def _watch(child: Child, level: HostMemory, deadline: float, progress: _Progress) -> None:
    """Note the progress of the child until it sends its next message, or has ended."""
    before = bytes_read(child.pid) or 0

    def note(read_memory: ReadMemory) -> None:
        above = read_memory().above(level)
        progress.private_bytes = max(progress.private_bytes, above.private_bytes or 0)
        read = (bytes_read(child.pid) or 0) - before
        progress.bytes_read = max(progress.bytes_read, read, above.file_bytes or 0)

    sample_memory(child, deadline, note)


def _out_of_memory(message: str, budget: Budget) -> str | None:
    """Return the reason, in words, of an exception about exhausted memory; None for any other message."""
    if message.startswith("OutOfMemoryError") and budget.device_bytes is not None:
        asked, taken = _ASKED.search(message), _TAKEN.search(message)
        held = 0
        if taken:
            held = sum(round(float(count) * _UNITS[unit]) for count, unit in (taken.groups()[:2], taken.groups()[2:]))
        more = f", {asked[1]} more asked for," if asked else ""
        return f"out of device memory at {_of(held, budget.device_bytes)}{more}"
    if _NO_HOST_MEMORY.search(message):
        return "out of host memory" + (f" of {short_size(budget.host_bytes)}" if budget.host_bytes else "")
    return None


def _of(held: int, budget: int | None) -> str:
    return short_size(held) if budget is None else f"{short_size(held)} of {short_size(budget)}"
