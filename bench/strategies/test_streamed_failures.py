"""A load by `streamed` that fails names what failed, and leaves no thread and nothing pinned."""

import gc
import os
import signal
import threading
import time
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench import interrupts
from bench.meters.simulated.ledger import PINNED, Ledger, in_place
from bench.meters.simulated.peaks import host_held
from bench.meters.simulated.simulation import simulation
from bench.selftest.held_models import CPU, CUDA, DEVICE, PAGE_BYTES, Extra, Holder, saved, small_parts, some
from bench.strategies.reading.records import unzip
from bench.strategies.reading.threads import Reader, ReadFailed
from bench.strategies.streamed import streamed


class Broken(Exception):
    """The failure that a test injects."""


def failing_build(error: BaseException) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        raise error

    return build


def stranger() -> nn.Module:
    return nn.Linear(2, 2)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("planned", [False, True], ids=["sim", "plan"])
@pytest.mark.parametrize("how", ["build", "misfit", "interrupt", "read"])
def test_after_a_failed_load_nothing_is_pinned_and_nothing_left(
    how: str,
    planned: bool,
    dtype: torch.dtype | None,
    tmp_path: Path,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tensors = some()
    path = saved(tensors, tmp_path)
    builds: dict[str, Callable[[], nn.Module]] = {
        "build": failing_build(Broken()),
        "misfit": stranger,
        "interrupt": failing_build(KeyboardInterrupt()),
        "read": lambda: Holder(tensors),
    }
    expected = {"build": Broken, "misfit": ValueError, "interrupt": KeyboardInterrupt, "read": OSError}[how]
    with simulation(ledger, planned=planned):
        if how == "read":
            monkeypatch.setattr(os, "preadv", unreadable_from(0))
            if planned:
                # A plan calls the system for nothing.
                monkeypatch.setattr(Reader, "read", unreadable)
        with pytest.raises(expected) as caught:
            streamed(builds[how], path, CUDA, dtype=dtype, threads=2)
        # As long as the error is held its frames are, and what is on the device with them; nothing stays pinned.
        assert ledger.held_bytes(PINNED) == 0
        assert host_held(in_place(ledger.events, PINNED)) == 0
        del caught
        builds.clear()
        gc.collect()
        assert ledger.held_bytes(PINNED) == ledger.held_bytes(DEVICE) == 0


def unreadable(_: Reader, opened: FileIO, start: int, _end: int, _address: int) -> None:
    raise ReadFailed(opened, start, "Input/output error")


def unreadable_from(first: int) -> Callable[..., int]:
    """`os.preadv` of a disk on which everything from this byte of a file on is broken."""
    preadv = os.preadv

    def read(descriptor: int, buffers: Any, offset: int) -> int:
        size = sum(memoryview(buffer).nbytes for buffer in buffers)
        if offset + size > first:
            raise OSError(5, "Input/output error")
        return preadv(descriptor, buffers, offset)

    return read


def four_tensors(folder: Path) -> tuple[dict[str, Tensor], Path, int]:
    """Their file, and a byte in the middle of the third, which is called c."""
    tensors = {name: torch.full((PAGE_BYTES,), float(number)) for number, name in enumerate("abcd")}
    path = saved(tensors, folder)
    with path.open("rb", buffering=0) as opened:
        record = unzip(opened)[1]["2"]
    return tensors, path, (record.start + record.end) // 2


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_what_cannot_be_read_is_named(
    dtype: torch.dtype | None, device: str, tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_parts(monkeypatch)
    tensors, path, middle = four_tensors(tmp_path)
    with simulation(ledger, planned=False):
        # In the middle of it: a read that begins in the one before may fail for either.
        monkeypatch.setattr(os, "preadv", unreadable_from(middle))
        with pytest.raises(OSError, match=r"checkpoint\.pt: c cannot be read: Input/output error"):
            streamed(lambda: Holder(tensors), path, torch.device(device), dtype=dtype, threads=4, ring=16 * PAGE_BYTES)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_so_is_what_was_cut_off_after_the_load_began(
    dtype: torch.dtype | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_parts(monkeypatch)
    tensors, path, middle = four_tensors(tmp_path)
    preadv = os.preadv

    def cut(descriptor: int, buffers: Any, offset: int) -> int:
        os.truncate(path, middle)
        return preadv(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", cut)
    with pytest.raises(OSError, match=r"checkpoint\.pt: [cd] cannot be read: the file ends there"):
        streamed(lambda: Holder(tensors), path, CPU, dtype=dtype, threads=4)


def test_a_value_of_extra_state_that_cannot_be_read_is_named_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved({"_extra_state": {"calibration": [torch.ones(5000)]}}, tmp_path)
    monkeypatch.setattr(os, "preadv", unreadable_from(0))
    with pytest.raises(OSError, match=r"checkpoint\.pt: _extra_state cannot be read"):
        streamed(Extra, path, CPU)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("when", ["built", "reading"])
def test_ctrl_c_ends_the_threads_that_read(
    when: str, dtype: torch.dtype | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the skeleton is built, and while only reading is left to be waited for."""
    small_parts(monkeypatch)
    tensors = {"one": torch.zeros(64 * PAGE_BYTES)}
    path = saved(tensors, tmp_path)
    read: list[int] = []
    preadv, built = os.preadv, threading.Event()

    def slow(descriptor: int, buffers: Any, offset: int) -> int:
        if when == "reading":
            assert built.wait(10)
        if len(read) == 3 and when == "reading":
            os.kill(os.getpid(), signal.SIGINT)
        read.append(offset)
        time.sleep(0.02)
        return preadv(descriptor, buffers, offset)

    def build() -> nn.Module:
        if when == "built":
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        built.set()
        return Holder(tensors)

    monkeypatch.setattr(os, "preadv", slow)
    with interrupts.interruptible(), pytest.raises(KeyboardInterrupt):
        streamed(build, path, CPU, dtype=dtype, threads=2)
    assert len(read) < 32
