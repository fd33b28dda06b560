"""Checkpoints that are made to hang a reader or to fill its memory: each ends in one error, in time."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from bench.conformance.profiles import EXAMPLES
from bench.meters.host import HostMemory, memory_reader, reset_peak
from bench.meters.process import Child, child_process, telling_failures
from bench.selftest.faults.bombs import PICKLE_BOMBS, Make
from bench.selftest.faults.header_bombs import FILE_BOMBS, INDEX_BOMBS, SAFETENSORS_BOMBS, ZIP_BOMBS
from model.examine.limits import MOST_BEYOND_BYTES, MOST_TIMES
from model.user.source import recognised
from model.user.state_keys import MOST_LISTED

BOMBS: dict[str, Make] = {
    f"{kind}: {name}": make
    for kind, bombs in {
        "pickle": PICKLE_BOMBS,
        "safetensors": SAFETENSORS_BOMBS,
        "index": INDEX_BOMBS,
        "zip": ZIP_BOMBS,
        "file": FILE_BOMBS,
    }.items()
    for name, make in bombs.items()
}
STATE = {"weight": torch.ones(16)}
# Of one slow core, and for each MiB.
MOST_SECONDS, MOST_SECONDS_PER_MIB = 10, 2
# Larger ones take seconds to read: by the profile `nightly` alone.
LARGE_BYTES = 2**17
# Of a line: the path, and what is said of it, of `MOST_LISTED` names say.
MOST_CHARACTERS = 400 * MOST_LISTED


@dataclass(frozen=True)
class Result:
    """The outcome of reading a file; `said` is the error, None: there was none."""

    said: str | None
    seconds: float
    memory_bytes: int


class TookTooLong(BaseException):
    """No error that a reader could take for one of its own."""


def stop(*_: object) -> None:
    raise TookTooLong


def serve(connection: Connection, _: object) -> None:
    """Read what is asked for, until nobody asks any more."""
    signal.signal(signal.SIGALRM, stop)
    with telling_failures(connection), memory_reader(os.getpid()) as memory:
        while True:
            try:
                path: Path = connection.recv()
            except EOFError:
                return
            reset_peak()
            before, start = _peak(memory()), time.process_time()
            signal.alarm(12 * MOST_SECONDS)
            said: str | None = None
            try:
                recognised(path, STATE)
            except ValueError as error:
                said = str(error)
            except BaseException as error:  # noqa: BLE001 - the finding
                said = f"{type(error).__name__} escaped: {str(error)[:200]}"
            signal.alarm(0)
            connection.send(Result(said, time.process_time() - start, _peak(memory()) - before))


def _peak(memory: HostMemory) -> int:
    return memory.total_peak_bytes or 0


@pytest.fixture(scope="module")
def reader() -> Iterator[Callable[[Path], Result]]:
    """Reads a file in another process: it may hang there, or end it."""
    with child_process(serve, None, 900.0) as child:
        yield lambda path: asked(child, path)


def asked(child: Child, path: Path) -> Result:
    child.connection.send(path)
    return child.receive(Result, child.deadline())


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_ends_in_one_error_in_time(name: str, tmp_path: Path, reader: Callable[[Path], Result]) -> None:
    path = BOMBS[name](tmp_path)
    size = sum(file.stat().st_size for file in tmp_path.iterdir() if file.is_file() and not file.is_symlink())
    if size > LARGE_BYTES and settings().max_examples < EXAMPLES["nightly"]:
        pytest.skip("large: --hypothesis-profile nightly")
    result = reader(path)
    assert result.said is not None
    assert result.said.startswith("--checkpoint: ")
    assert result.said.isprintable()
    assert len(result.said) <= MOST_CHARACTERS
    assert result.seconds < MOST_SECONDS + MOST_SECONDS_PER_MIB * size / 2**20
    assert result.memory_bytes <= MOST_TIMES * size + MOST_BEYOND_BYTES
