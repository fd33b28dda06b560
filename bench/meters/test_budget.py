"""Loads under limits, with stand-ins for strategies that take what they are told to."""

import ctypes
import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bench.meters import device_meter
from bench.meters.budget import (
    Budget,
    BudgetedLoad,
    HostTooSmall,
    _out_of_memory,
    empty_process_bytes,
    smallest,
)
from bench.meters.cgroup import NoCgroup
from bench.meters.child import Job
from bench.meters.page_cache import StillCached
from bench.meters.process import LoadDied, LoadFailed

MIB = 2**20
LIMIT_SECONDS = 30.0
PARTS = 8


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of as many tensors of 8 MiB each."""
    path = tmp_path_factory.mktemp("budget") / "checkpoint"
    path.write_bytes(os.urandom(PARTS * 8 * MIB))
    return path


@pytest.fixture(scope="module")
def cgroups(file: Path) -> None:
    """Skips a test where the host cannot be limited."""
    try:
        trial(map_it, file).under(host(64 * MIB))
    except (NoCgroup, StillCached) as error:
        pytest.skip(str(error))


def read_it(path: Path, device: torch.device, _: object) -> nn.Module:
    """Holds every part, after reading it."""
    model = nn.Module()
    with path.open("rb", buffering=0) as opened:
        for part in range(PARTS):
            memory = torch.empty(8 * MIB, dtype=torch.uint8)
            opened.readinto((ctypes.c_char * (8 * MIB)).from_address(memory.data_ptr()))
            model.register_buffer(f"part{part}", memory.to(device))
            time.sleep(0.01)
    return model


def map_it(path: Path, _device: torch.device, _: object) -> nn.Module:
    model = nn.Module()
    storage = torch.UntypedStorage.from_file(str(path), False, path.stat().st_size)
    model.register_buffer("all", torch.empty(0, dtype=torch.uint8).set_(storage))  # type: ignore[arg-type]
    return model


def fail(*_: object) -> nn.Module:
    raise ValueError("mine")


def ask_too_much(*_: object) -> nn.Module:
    raise MemoryError


def die(*_: object) -> nn.Module:
    os._exit(3)


def wait(*_: object) -> nn.Module:
    time.sleep(60)
    raise AssertionError


def nothing(*_: object) -> None:
    pass


def wrong(_: nn.Module) -> None:
    raise ValueError("a weight is wrong")


def trial(
    load: Callable[..., nn.Module],
    path: Path,
    device: str = "cpu",
    check: Callable[[nn.Module], object] = nothing,
    limit_seconds: float = LIMIT_SECONDS,
) -> BudgetedLoad:
    job = Job(partial(device_meter, device), nothing, partial(load, path), None, check)
    return BudgetedLoad(job, [path], [8 * MIB] * PARTS, limit_seconds)


def host(room: int) -> Budget:
    return Budget(host_bytes=empty_process_bytes(LIMIT_SECONDS) + room)


@pytest.mark.usefixtures("cgroups")
def test_who_holds_more_than_there_is_is_killed_and_it_is_told_when(file: Path) -> None:
    outcome = trial(read_it, file).under(host(36 * MIB))
    assert not outcome.fits
    said, _, read = outcome.failure_reason.partition(" after ")
    assert re.fullmatch(r"killed at [\d.]+ MiB of [\d.]+ MiB", said)
    # The fifth part of eight does not fit; the kernel and Python take a little, too.
    assert read in {"38 % of the tensors", "50 % of the tensors"}


@pytest.mark.usefixtures("cgroups")
def test_who_needs_less_lives(file: Path) -> None:
    assert trial(read_it, file).under(host((PARTS * 8 + 24) * MIB)).fits


@pytest.mark.usefixtures("cgroups")
def test_who_maps_needs_next_to_nothing(file: Path) -> None:
    # Half of what it maps: what is read ahead cannot be reclaimed before it has come. From a quiet disk 12 MiB were
    # enough every time; beside others that read and wrote without a pause, 24 were too few in two of six.
    outcome = trial(map_it, file).under(host(PARTS * 4 * MIB))
    assert (outcome.fits, outcome.failure_reason) == (True, "")
    assert outcome.empty_bytes > 50 * MIB


@pytest.mark.usefixtures("cgroups")
def test_a_budget_below_an_empty_process_is_told(file: Path) -> None:
    with pytest.raises(HostTooSmall, match=r"100 MiB is not above the [\d,]+ MiB of an idle process; give at least"):
        trial(read_it, file).under(Budget(host_bytes=100 * MIB))


def test_a_simulated_device_has_no_more_than_its_capacity(file: Path) -> None:
    outcome = trial(read_it, file, "sim").under(Budget(device_bytes=50 * MIB))
    # Parts take segments of 20 MiB, two in each: the fifth asks for a third.
    assert (
        outcome.failure_reason
        == "out of device memory at 40 MiB of 50 MiB, 20.00 MiB more asked for, after 62 % of the tensors"
    )
    assert trial(read_it, file, "sim").under(Budget(device_bytes=80 * MIB)).fits


def ask_for_100_mib(_: nn.Module) -> None:
    torch.empty(100 * MIB, dtype=torch.uint8, device="cuda")


def test_the_devices_budget_is_the_loads_alone(file: Path) -> None:
    """The budget, like the peak, is the load's: what the model computes takes memory of its own."""
    tried = trial(read_it, file, "sim")
    asking = replace(tried, job=replace(tried.job, use=ask_for_100_mib, check=ask_for_100_mib))
    assert asking.under(Budget(device_bytes=80 * MIB)).fits


def test_without_a_budget_everybody_lives(file: Path) -> None:
    assert trial(read_it, file).under(Budget()).fits
    assert not Budget()
    assert Budget(device_bytes=1)
    assert Budget(host_bytes=1)


@pytest.mark.parametrize("budget", [Budget(), Budget(device_bytes=2**30)])
def test_what_has_nothing_to_do_with_memory_is_no_fate(file: Path, budget: Budget) -> None:
    with pytest.raises(LoadFailed, match="ValueError: mine"):
        trial(fail, file, "sim").under(budget)
    with pytest.raises(LoadDied, match="exited with status 3"):
        trial(die, file, "sim").under(budget)
    with pytest.raises(LoadFailed, match="a weight is wrong"):
        trial(read_it, file, check=wrong).under(Budget())


def test_a_load_that_gets_no_memory_is_told(file: Path) -> None:
    assert trial(ask_too_much, file).under(Budget()).failure_reason == "out of host memory after 0 % of the tensors"


def test_a_load_that_takes_too_long_has_died(file: Path) -> None:
    told = trial(wait, file, limit_seconds=2).under(Budget(device_bytes=2**30)).failure_reason
    assert told.startswith("not done within 2 s at ")
    assert told.endswith(" after 0 % of the tensors")


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 8.00 GiB "
            "of which 1.00 GiB is free. Including non-PyTorch memory, this process has 7.00 GiB in use. 8.00 GiB "
            "allowed; Of the allocated memory 6.00 GiB is allocated by PyTorch, and 512.00 MiB is reserved by PyTorch "
            "but unallocated. If reserved but unallocated memory is large try setting something",
            "out of device memory at 6.5 GiB of 8 GiB, 2.50 GiB more asked for,",
        ),
        ("OutOfMemoryError: something else", "out of device memory at 0 MiB of 8 GiB"),
        ("MemoryError: ", "out of host memory"),
        ("RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried", "out of host memory"),
        ("RuntimeError: unable to mmap 7 bytes from file <x>: Cannot allocate memory (12)", "out of host memory"),
        ("RuntimeError: shapes differ", None),
    ],
)
def test_what_torch_says_of_memory_is_understood(message: str, told: str | None) -> None:
    assert _out_of_memory(message, Budget(device_bytes=8 * 2**30)) == told


@given(st.integers(1, 10**6), st.integers(1, 10**4), st.integers(0, 10**6))
def test_bisection_ends_at_most_a_tolerance_above_what_is_needed(needed: int, tolerance: int, beyond: int) -> None:
    tried: list[int] = []

    def lives(count: int) -> bool:
        tried.append(count)
        return count >= needed

    found = smallest(lives, 0, needed + beyond, tolerance)
    assert found is not None
    assert needed <= found < needed + tolerance
    assert len(tried) <= 2 + (needed + beyond).bit_length()
    assert smallest(lives, 0, needed - 1, tolerance) is None
