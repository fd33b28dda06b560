"""Reading in threads: all of it is read, and where one fails the others end."""

import ctypes
import os
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from bench.strategies.reading.records import StorageSpan
from bench.strategies.reading.threads import Reader, ReadFailed, started


class Named(NamedTuple):
    """Return as much of a file as is asked for."""

    name: str


class Opened:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


many = pytest.mark.parametrize("threads", [1, 2, 8])


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = threading.enumerate()
    yield
    assert [thread for thread in threading.enumerate() if thread not in before] == []


@many
def test_every_part_is_filled_once(threads: int) -> None:
    filled: list[int] = []
    with started(filled.append, ((number,) for number in range(1000)), threads) as finish:
        finish({}, {})
        assert sorted(filled) == list(range(1000))


@many
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_where_one_fails_the_others_end(threads: int, error: type[BaseException]) -> None:
    """There would be parts without end."""

    def fill(number: int) -> None:
        if number == 100:
            raise error

    with pytest.raises(error), started(fill, ((number,) for number in count()), threads) as finish:
        finish({}, {})


@many
def test_so_they_do_where_parts_cannot_be_told(threads: int) -> None:
    def parts() -> Iterator[tuple[int]]:
        yield (1,)
        raise RuntimeError("no part")

    with (
        pytest.raises(RuntimeError, match="no part"),
        started(lambda _: None, parts(), threads) as finish,
    ):
        finish({}, {})


@many
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_where_the_block_fails_they_end(threads: int, error: type[BaseException]) -> None:
    with pytest.raises(error), started(lambda _: None, ((number,) for number in count()), threads):
        raise error


def test_not_one_more_is_filled_after_the_block() -> None:
    filled: list[int] = []
    with started(filled.append, ((number,) for number in count()), 4):
        pass
    before = len(filled)
    assert len(filled) == before
    assert sorted(filled) == list(range(before))


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Any]:
    (tmp_path / "weights").write_bytes(bytes(range(256)) * 64)
    with (tmp_path / "weights").open("rb", buffering=0) as opened:
        yield Opened(opened=opened)


def test_a_read_that_gives_less_goes_on(file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of more than 2 GiB do so."""
    preadv = os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda descriptor, buffers, offset: preadv(descriptor, [memoryview(buffers[0])[:100]], offset)
    )
    memory = bytearray(1001)
    reader = Reader([file], direct=False)
    reader.read(file.opened, 5, 1005, address_of(memory))
    reader.close()
    assert bytes(memory) == (bytes(range(256)) * 64)[5:1005] + b"\0"


def address_of(memory: bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def test_what_is_read_to_the_end_of_the_file_is_an_error(file: Any) -> None:
    reader = Reader([file], direct=False)
    memory = bytearray(2000)
    with pytest.raises(ReadFailed) as caught:
        reader.read(file.opened, 64 * 256 - 1000, 64 * 256 + 1000, address_of(memory))
    reader.close()
    assert caught.value.args == (file.opened, 64 * 256, "the file ends there")


@many
def test_the_tensors_at_the_byte_are_named(file: Any, threads: int) -> None:
    """The record that it lies in, or the next one; of another file it may be in the same place."""
    other = Named(name="other")
    records = [StorageSpan(other, 0, 100), StorageSpan(file.opened, 0, 100), StorageSpan(file.opened, 128, 200)]  # type: ignore[arg-type]
    tensors = {name: torch.zeros(3) for name in "abc"}
    storages = {record: t.untyped_storage() for record, t in zip(records, tensors.values(), strict=True)}
    tied = tensors | {"d": tensors["c"], "_extra_state": {"no": "tensor"}}

    def fill(byte: int) -> None:
        raise ReadFailed(file.opened, byte, "why")

    for byte, names in ((99, "b"), (100, "c, d"), (199, "c, d")):
        with (
            pytest.raises(OSError, match=rf"weights: {names} cannot be read: why"),
            started(fill, [(byte,)], threads) as finish,
        ):
            finish(tied, storages)


def test_of_several_that_fail_the_first_of_the_file_is_named(file: Any) -> None:
    records = [StorageSpan(file.opened, start, start + 100) for start in (0, 128)]
    tensors = {name: torch.zeros(3) for name in "ab"}
    storages = {record: t.untyped_storage() for record, t in zip(records, tensors.values(), strict=True)}
    later_failed = threading.Event()

    def fill(byte: int) -> None:
        if byte == 150:
            later_failed.set()
        else:
            assert later_failed.wait(10)
        raise ReadFailed(file.opened, byte, "why")

    with (
        pytest.raises(OSError, match="weights: a cannot be read"),
        started(fill, [(50,), (150,)], 2) as finish,
    ):
        finish(tensors, storages)


def test_a_reader_leaves_no_file_open(file: Any) -> None:
    before = list(Path("/proc/self/fd").iterdir())
    reader = Reader([file], direct=False)
    reader.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == len(before)


def test_not_even_where_a_later_one_cannot_be_opened(file: Any) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    gone = Opened(opened=Named(name=f"{file.opened.name}.gone"))
    with pytest.raises(FileNotFoundError):
        Reader([file, gone], direct=False)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
