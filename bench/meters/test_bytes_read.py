import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.meters import host
from bench.meters.host import bytes_read

MIB = 2**20
# What it takes to ask, and what Python reads beside.
NOISE = 64 * 2**10

linux = pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs Linux's /proc")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(os.urandom(8 * MIB))
    return tmp_path / "file"


def counted(function: Callable[[], object]) -> int:
    """Return the bytes that were read while a function ran."""
    before = bytes_read()
    function()
    after = bytes_read()
    assert before is not None
    assert after is not None
    return after - before


@linux
def test_what_a_file_gives_counts_as_often_as_it_is_read(file: Path) -> None:
    assert counted(file.read_bytes) == pytest.approx(8 * MIB, abs=NOISE)
    # It comes from the page cache as well.
    assert counted(lambda: (file.read_bytes(), file.read_bytes())) == pytest.approx(16 * MIB, abs=NOISE)

    def read_part() -> None:
        with file.open("rb", buffering=0) as opened:
            os.pread(opened.fileno(), 2 * MIB, MIB)

    assert counted(read_part) == pytest.approx(2 * MIB, abs=NOISE)


@linux
def test_what_is_mapped_does_not_count_nor_what_is_written(file: Path) -> None:
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert counted(lambda: sum(mapped[:: mmap.PAGESIZE])) == pytest.approx(0, abs=NOISE)
    assert counted(lambda: file.write_bytes(bytes(8 * MIB))) == pytest.approx(0, abs=NOISE)


def test_where_the_system_does_not_tell_it_is_unknown_and_not_0(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(host, "PROC", tmp_path)
    assert bytes_read() is None
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "io").write_text("write_bytes: 4096\n")
    assert bytes_read() is None
    (tmp_path / "self" / "io").write_text("rchar: 1234\nwchar: 5\n")
    assert bytes_read() == 1234
