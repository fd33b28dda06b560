"""The answer of a run for its page: the strategy to use, what it needs of what there is, the command and the code."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from textwrap import dedent
from typing import Any, NamedTuple

from bench.history.schema import INTERRUPTED
from bench.report.advice.advice import Advice
from bench.report.advice.from_rows import chosen, suggested
from bench.report.recorded import Recorded
from bench.report.rows import Row

GIB = 2**30
# Of a GiB, in two digits.
LEAST = 0.01


class Need(NamedTuple):
    """Memory that the strategy takes of one place; `there_bytes` is what is there, None if nobody knows."""

    place: str
    needed_bytes: int
    there_bytes: int | None

    @property
    def text(self) -> str:
        """The figures in GiB: `0.68 GiB of 23.5 GiB`."""
        of = f" of {_gib(self.there_bytes)}" if self.there_bytes else ""
        return f"{_gib(self.needed_bytes)}{of}"

    @property
    def percent(self) -> int | None:
        """The part of what is there, of 100 at most."""
        return min(100, round(100 * self.needed_bytes / self.there_bytes)) if self.there_bytes else None


@dataclass(frozen=True)
class Answer:
    """`choice` is the strategy, and how it divides the model; empty if no strategy can be used. `parts` are lines.

    Each of them says whether it is code to be copied.

    `code` is the module of the strategy, in the file `code_file`; None for a loader of the user's.
    """

    choice: str
    needs: Sequence[Need]
    parts: Sequence[tuple[bool, str]]
    code: str | None = None
    code_file: str = ""


def answer(recorded: Recorded) -> Answer:
    """Return the answer of a run: the advice that it recorded for its budget, or else that of its rows."""
    best = chosen(recorded.rows, recorded.cells)[:1]
    advice = suggested(recorded.rows, recorded.cells)
    lines = recorded.advice or (advice.lines() if advice else ())
    if not best or not _is_advised(best[0], recorded):
        return Answer("", (), list(advice_parts(recorded.advice)))
    [row] = best
    named = Advice(row.key.strategy, "", of_ranks=bool(row.key.parallelism))
    needed = list(needs(row, recorded.run.machine))
    divided = f", {row.key.parallelism} on {row.key.ranks:,} ranks" if row.key.parallelism else ""
    return Answer(f"{row.key.strategy}{divided}", needed, list(advice_parts(lines)), named.code(), named.code_file)


def _is_advised(row: Row, recorded: Recorded) -> bool:
    """Return False if the run's own advice names another strategy, or if the run was interrupted before it had one."""
    if recorded.advice:
        return recorded.advice[0].startswith(f"Use {row.key.strategy} for ")
    return row.record.fits is not None or recorded.run.outcome != INTERRUPTED


def needs(row: Row, machine: Mapping[str, Any]) -> Iterator[Need]:
    """Yield what a load takes of the device and of the host, beside its budget or else what the machine has.

    A planned load is for another machine, of which only a budget is known.
    """
    record = row.record
    here = {} if record.planned else machine
    device = _first(record.device_reserved_peak_bytes, record.device_requested_peak_bytes)
    if device is not None:
        place = "memory of each GPU" if record.ranks else "GPU memory"
        yield Need(place, device, record.device_budget_bytes or _smallest_gpu(here))
    host = record.host_private_peak_bytes
    if record.ranks and record.node_private_peak_bytes is not None:
        yield Need("RAM of a node", record.node_private_peak_bytes, record.host_budget_bytes)
    elif host is not None:
        # The kernel's level before the load may be above that after it.
        yield Need("RAM", max(host, 0), record.host_budget_bytes or here.get("memory_bytes"))
    # The kernel takes them back when memory is short.
    if record.ownership == "mapped" and record.host_file_peak_bytes:
        yield Need("pages of the checkpoint in RAM", record.host_file_peak_bytes, here.get("memory_bytes"))


def _smallest_gpu(machine: Mapping[str, Any]) -> int | None:
    found = machine.get("gpu_memory_bytes")
    return min(found) if found else None


def _first(*figures: int | None) -> int | None:
    return next((figure for figure in figures if figure is not None), None)


def _gib(count: int) -> str:
    if 0 < count < LEAST * GIB:
        return f"less than {LEAST} GiB"
    return f"{count / GIB:,.2f} GiB" if count < 10 * GIB else f"{count / GIB:,.1f} GiB"


def advice_parts(lines: Sequence[str]) -> Iterator[tuple[bool, str]]:
    """Yield the lines of an advice, those to be copied, which begin with four blanks, together as a block of code."""
    for is_code, group in groupby(lines, lambda line: line.startswith("    ") or not line):
        if is_code:
            yield True, dedent("\n".join(group))
        else:
            yield from ((False, line) for line in group)
