"""Tensors in the memory of another process, read from outside if the system allows it."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from model.digest import TensorDigest
from model.verification.tensor_places import TensorPlace

# Bytes that are read at once.
CHUNK_BYTES = 2**20
THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class ProcessMemory:
    """The memory of process `pid`, open for reading; the process cannot close it."""

    pid: int
    descriptor: int

    def sha256(self, place: TensorPlace) -> str | None:
        """Return the SHA-256 of a tensor's values, in the order of its indices; None where they cannot be read."""
        if place.sha256:
            return place.sha256
        if place.count and not place.address:
            return None
        if not place.is_contiguous:
            values = self.tensor(place)
            return None if values is None else TensorDigest.of(values).sha256
        digest, buffer = sha256(), memoryview(bytearray(min(CHUNK_BYTES, place.span_bytes)))
        for start in range(0, place.span_bytes, CHUNK_BYTES):
            part = buffer[: min(CHUNK_BYTES, place.span_bytes - start)]
            if not self._read(place.address + start, part):
                return None
            digest.update(part)
        return digest.hexdigest()

    def digests(self, places: list[TensorPlace]) -> list[str | None]:
        """Return the digest of each tensor, see `sha256`."""
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(self.sha256, places))

    def tensor(self, place: TensorPlace) -> Tensor | None:
        """Return a copy of a tensor; None where it cannot be read."""
        dtype = getattr(torch, place.dtype.removeprefix("torch."))
        if not place.count:
            return torch.empty(place.shape, dtype=dtype)
        content = bytearray(place.span_bytes)
        if not place.address or not self._read(place.address, memoryview(content)):
            return None
        return torch.frombuffer(content, dtype=dtype).as_strided(place.shape, place.stride)

    def shares(self, places: list[TensorPlace]) -> bool:
        """Return whether any of these tensors is in memory that other processes can write to, or the file it maps."""
        starts = sorted(place.address for place in places if place.address)
        for line in Path(f"/proc/{self.pid}/maps").read_bytes().splitlines():
            extent, permissions, *_ = line.split(maxsplit=2)
            if permissions.endswith(b"s"):
                start, end = (int(one, 16) for one in extent.split(b"-"))
                if any(start <= address < end for address in starts):
                    return True
        return False

    def has_children(self) -> bool:
        """Return whether the process has living children."""
        return any(file.read_bytes().strip() for file in Path(f"/proc/{self.pid}/task").glob("*/children"))

    def _read(self, address: int, into: memoryview) -> bool:
        done = 0
        try:
            while done < len(into):
                count = os.preadv(self.descriptor, [into[done:]], address + done)
                if not count:
                    return False
                done += count
        except (OSError, OverflowError):
            return False
        return True


@contextmanager
def memory_of(pid: int | None) -> Iterator[ProcessMemory | None]:
    """Open the memory of a child before it does anything; None if the system forbids it."""
    try:
        descriptor = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    except OSError:
        yield None
        return
    try:
        yield None if pid is None else ProcessMemory(pid, descriptor)
    finally:
        os.close(descriptor)
