import ctypes
import mmap
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import chain, repeat
from pathlib import Path

import pytest
import torch

from bench.meters import host
from bench.meters.host import (
    PAGE_BYTES,
    HostMemory,
    file_backed,
    fresh_memory,
    memory_reader,
    release_memory,
    reports_free_memory,
    reset_peak,
    touch_free_memory,
)

MIB = 2**20
NOISE = MIB

if not Path("/proc/self/clear_refs").exists():
    pytest.skip("needs Linux's /proc", allow_module_level=True)


def test_whether_memory_is_of_a_file_is_told_of_any_place_in_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(5 * PAGE_BYTES))
    with (tmp_path / "file").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped, fresh_memory(MIB) as fresh:
        places = [(ctypes.c_char * len(memory)).from_buffer(memory) for memory in (mapped, fresh)]
        in_file, beside = map(ctypes.addressof, places)
        assert file_backed([in_file, beside, in_file + 5 * PAGE_BYTES - 1, 0]) == [True, False, True, False]
        del places


@pytest.fixture
def gained() -> Callable[[Callable[[], object]], HostMemory]:
    """Return the host memory that a function adds to this process while its result is alive."""

    def run(function: Callable[[], object]) -> HostMemory:
        release_memory()
        with memory_reader(os.getpid()) as read:
            reset_peak()
            level = read()
            result = function()
            gain = read().above(level)
            del result
        return gain

    return run


Gained = Callable[[Callable[[], object]], HostMemory]


@pytest.fixture
def mapped_file(tmp_path: Path) -> mmap.mmap:
    (tmp_path / "file").write_bytes(bytes(64 * MIB))
    with (tmp_path / "file").open("rb") as file:
        return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)


def test_memory_that_was_filled_is_private(gained: Gained) -> None:
    gain = gained(lambda: b"x" * (64 * MIB))
    assert gain.private_bytes == pytest.approx(64 * MIB, abs=NOISE)
    assert gain.file_bytes == pytest.approx(0, abs=NOISE)
    assert gain.total_peak_bytes == pytest.approx(64 * MIB, abs=NOISE)


def test_memory_that_was_given_back_is_in_the_peak_alone(gained: Gained) -> None:
    gain = gained(lambda: len(b"x" * (64 * MIB)))
    assert gain.private_bytes == pytest.approx(0, abs=NOISE)
    assert gain.total_peak_bytes == pytest.approx(64 * MIB, abs=NOISE)


def test_a_mapped_file_counts_once_it_is_read(gained: Gained, mapped_file: mmap.mmap) -> None:
    untouched = gained(lambda: memoryview(mapped_file))
    assert untouched.total_bytes == pytest.approx(0, abs=NOISE)
    read = gained(lambda: sum(mapped_file[:: mmap.PAGESIZE]))
    assert read.file_bytes == pytest.approx(64 * MIB, abs=NOISE)
    assert read.private_bytes == pytest.approx(0, abs=NOISE)


def test_shared_memory_is_private_for_nobody_can_reclaim_it(gained: Gained) -> None:
    def share() -> mmap.mmap:
        shared = mmap.mmap(-1, 64 * MIB)
        shared.write(b"x" * (64 * MIB))
        return shared

    gain = gained(share)
    assert gain.private_bytes == pytest.approx(64 * MIB, abs=NOISE)


def test_another_process_can_be_read_until_it_ends() -> None:
    fill = "import sys; x = b'x' * (64 << 20); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", fill], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        with memory_reader(process.pid) as read:
            assert (read().private_bytes or 0) > 64 * MIB
            process.kill()
            process.wait()
            with pytest.raises(ProcessLookupError):
                read()


def test_without_proc_the_total_is_psutils_and_the_rest_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "PROC", Path("/nowhere"))
    with memory_reader(os.getpid()) as read:
        memory = read()
    assert memory.total_bytes > MIB
    assert memory == HostMemory(None, None, memory.total_bytes, None)
    assert memory.above(memory) == HostMemory(None, None, 0, None)
    assert memory.peak_with(memory) == memory
    reset_peak()
    with pytest.raises(ProcessLookupError), memory_reader(2**30) as read:
        read()


def test_fresh_memory_takes_none_until_it_is_written_to(gained: Gained) -> None:
    def fill() -> mmap.mmap:
        memory = fresh_memory(64 * MIB)
        memory.write(b"x" * (64 * MIB))
        return memory

    assert gained(lambda: fresh_memory(64 * MIB)).private_bytes == pytest.approx(0, abs=NOISE)
    # Huge pages are whole, whatever part of them was asked for.
    assert gained(fill).private_bytes == pytest.approx(64 * MIB, abs=4 * MIB)


def test_fresh_memory_comes_in_pages_as_large_as_those_of_a_tensor() -> None:
    """Or a limit would be one that no load has to keep to: shared memory was seen to be four times slower."""

    def faults(address: int) -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        ctypes.memset(address, 1, 64 * MIB)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    tensor, memory = torch.empty(66 * MIB, dtype=torch.uint8), fresh_memory(64 * MIB)
    address = -(-tensor.data_ptr() // (2 * MIB)) * 2 * MIB
    ctypes.CDLL(None).madvise(ctypes.c_void_p(address), ctypes.c_size_t(64 * MIB), mmap.MADV_HUGEPAGE)
    # The first and the last huge page may be small ones.
    assert faults(ctypes.addressof(ctypes.c_char.from_buffer(memory))) <= faults(address) + 2 * 512


@pytest.mark.parametrize("size", [64 * MIB, 3 * 64 * MIB + 1, 1, 0])
def test_all_of_so_much_free_memory_is_touched_and_given_back(gained: Gained, size: int) -> None:
    gain = gained(lambda: touch_free_memory(size))
    assert gain.private_bytes == pytest.approx(0, abs=NOISE)
    assert gain.total_peak_bytes == pytest.approx(size, abs=4 * MIB)


@pytest.mark.parametrize(
    ("size", "reported", "touched", "expected"),
    [
        (65 * MIB, True, 1.0, [65 * MIB, 1.5, 65 * MIB]),
        (65 * MIB, True, 3.0, [65 * MIB, 0.0, 65 * MIB]),
        (65 * MIB, False, 1.0, [65 * MIB]),
        (64 * MIB, True, 1.0, [64 * MIB]),
    ],
)
def test_much_is_held_until_what_was_free_before_is_the_hosts_and_written_to_again(
    monkeypatch: pytest.MonkeyPatch, size: int, reported: bool, touched: float, expected: list[float]
) -> None:
    """Memory is given back after that, or the host would take it in the middle of a load; processors are awake."""
    times, done = chain((100.0,), repeat(100.0 + touched)), list[float]()

    def sleep(seconds: float) -> None:
        with memory_reader(os.getpid()) as read:
            assert (read().private_bytes or 0) > size
        done.append(seconds)

    def write(address: int, value: int, count: int) -> None:
        memset(address, value, count)
        if done and isinstance(done[-1], int):
            done[-1] += count
        else:
            done.append(count)

    memset = ctypes.memset
    monkeypatch.setattr(ctypes, "memset", write)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)

    monkeypatch.setattr(host, "LITTLE_BYTES", 64 * MIB)
    monkeypatch.setattr(host, "reports_free_memory", lambda: reported)
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    monkeypatch.setattr(time, "sleep", sleep)
    touch_free_memory(size)
    assert done == expected


@pytest.mark.parametrize(
    ("devices", "reported"),
    [
        ({}, False),
        ({"virtio0": ("0x0002", "1" * 64)}, False),
        ({"virtio0": ("0x0005", "11111011")}, False),
        ({"virtio0": ("0x0002", "0" * 64), "virtio1": ("0x0005", "000001" + "0" * 58)}, True),
    ],
)
def test_a_balloon_that_is_told_of_free_pages_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, devices: dict[str, tuple[str, str]], reported: bool
) -> None:
    for name, (kind, features) in devices.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "device").write_text(f"{kind}\n")
        (tmp_path / name / "features").write_text(f"{features}\n")
    monkeypatch.setattr(host, "VIRTIO", tmp_path)
    assert reports_free_memory() == reported
    monkeypatch.setattr(host, "VIRTIO", tmp_path / "nowhere")
    assert not reports_free_memory()
