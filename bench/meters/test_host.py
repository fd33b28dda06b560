import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.meters import host
from bench.meters.host import HostMemory, memory_reader, release_memory, reset_peak

MIB = 2**20
NOISE = MIB

if not Path("/proc/self/clear_refs").exists():
    pytest.skip("needs Linux's /proc", allow_module_level=True)


@pytest.fixture
def gained() -> Callable[[Callable[[], object]], HostMemory]:
    """What this process has more of after a function ran, while its result is alive."""

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
