"""Runs of both sides in turn: other work on the machine slows down both equally."""

import os
import re
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from bench.versus.environments import Environment
from bench.versus.run_figures import RunFigures, read_run
from bench.versus.sides import Side

# A run that is interrupted has so long to end by itself, and to remove what it has in temporary folders.
ENDING_SECONDS = 10.0

# pytest cuts the lines that say what failed to the width of the terminal.
COLUMNS = "240"


class RunFailed(Exception):
    """A run of one side failed: one line, with pytest's last line."""


@dataclass(frozen=True)
class InterleavedRuns:
    """Figures of two sides: a round is one run of the reference and one of the candidate, back to back."""

    reference: Side
    candidate: Side
    rounds: tuple[tuple[RunFigures, RunFigures], ...]


def measure_in_turn(  # noqa: PLR0913, PLR0917 - two sides, how they are run, and where
    reference: Environment,
    candidate: Environment,
    options: Sequence[str],
    rounds: int,
    folder: Path,
    say: Callable[[str], None],
) -> InterleavedRuns:
    """Run pytest with `options` in both environments, `rounds` times each; `say` gets a line about every run.

    The order is ABBA ABBA ...: a steady drift, and what the first of two runs leaves for the second, weigh on both
    sides in turn. The JSON and the output of the runs stay in `folder`. Raises `RunFailed`.
    """
    sides, order = (reference, candidate), turns(rounds)
    runs: tuple[list[RunFigures], list[RunFigures]] = ([], [])
    begin = monotonic()
    for done, turn in enumerate(order, 1):
        began = monotonic()
        runs[turn].append(_run(sides[turn], options, folder.resolve() / f"run-{done:02}"))
        now = monotonic()
        left = _duration((now - begin) / done * (len(order) - done))
        say(f"run {done} of {len(order)}, {sides[turn].side.name}: took {_duration(now - began)}, {left} left")
    return InterleavedRuns(reference.side, candidate.side, tuple(zip(*runs, strict=True)))


def turns(rounds: int) -> list[int]:
    """Return the side of each run, 0 or 1, in order."""
    return [side for number in range(rounds) for side in ((1, 0) if number % 2 else (0, 1))]


def _run(environment: Environment, options: Sequence[str], stem: Path) -> RunFigures:
    """Run one side; its JSON and its output are written beside `stem`."""
    record, log = stem.with_suffix(".json"), stem.with_suffix(".log")
    record.parent.mkdir(parents=True, exist_ok=True)
    ours = ("--benchmark-only", f"--benchmark-json={record}", f"--benchmark-storage={stem.with_name('unkept')}")
    quiet = ("-p", "no:cacheprovider", "--color=no")
    status = _finish((str(environment.python), "-m", "pytest", *options, *ours, *quiet), environment.checkout, log)
    if status:
        raise RunFailed(f"{environment.side.name}: {_reason(log.read_text(errors='replace'), status)}")
    try:
        return read_run(record)
    except ValueError as error:
        raise RunFailed(f"{environment.side.name}: {error}") from None


def _finish(command: Sequence[str], checkout: Path, log: Path) -> int:
    """Run a command in a process group, which ends when this process is interrupted; return its exit status."""
    # The job's page is for the comparison, not for ten tables.
    environment = {name: value for name, value in os.environ.items() if name != "GITHUB_STEP_SUMMARY"}
    environment["COLUMNS"] = COLUMNS
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=checkout,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        try:
            return process.wait()
        except BaseException:
            _end(process)
            raise


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process and all that it started: the processes of its loads hold most of its memory."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(ENDING_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _reason(output: str, status: int) -> str:
    """Return why a run failed: the last test that pytest names as failed, or else the last line that it wrote."""
    if status < 0:
        return f"its run was killed by {signal.Signals(-status).name}"
    lines = [text for line in output.splitlines() if (text := line.strip(" ="))]
    failed = [line for line in lines if re.match(r"(FAILED|ERROR)[ :]", line)]
    last = (failed or lines or ["it says nothing"])[-1]
    return f"its run failed with exit status {status}: {last}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"  # noqa: PLR2004 - three digits at most
