"""Writers of checkpoint files: plain, with their SHA-256, or sparse."""

import hashlib
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import torch
from torch import Tensor

from model.digest import bytes_of
from model.weights import Progress

# The entry of a file in a manifest: its `bytes` and its `sha256`.
ManifestEntry = dict[str, int | str]

# Writes something to a new file: `RawContent` as it is, all else with `torch.save`.
Saved = TypeVar("Saved")

Save = Callable[[object, Path], Saved]

# Stands for the content of a file that a foreign library has written itself.
WRITTEN = object()

# Smaller parts are written before a thread would have started.
LARGE_BYTES = 2**20


@dataclass(frozen=True)
class RawContent:
    """Content that is written without `torch.save`: bytes, and the bytes of contiguous tensors."""

    parts: list[bytes | Tensor]


class HashingFile:
    """A file that computes the SHA-256 of its content while it is written."""

    def __init__(self, file: IO[bytes], progress: Progress) -> None:
        self._file = file
        self._progress = progress
        self._sha256 = hashlib.sha256()
        self.bytes = 0

    def write(self, data: memoryview | bytes) -> int:
        if len(data) < LARGE_BYTES:
            self._sha256.update(data)
            written = self._file.write(data)
        else:
            # Both release the interpreter lock, and take about as long.
            with ThreadPoolExecutor(1) as pool:
                digest = pool.submit(self._sha256.update, data)
                written = self._file.write(data)
                digest.result()
        self.bytes += written
        self._progress(written)
        return written

    def flush(self) -> None:
        self._file.flush()

    def entry(self) -> ManifestEntry:
        """Return the entry of this file in a manifest."""
        return {"bytes": self.bytes, "sha256": self._sha256.hexdigest()}


def save_plain(content: object, path: Path) -> None:
    """Write to a new file."""
    if content is WRITTEN:
        return
    with path.open("xb") as file:
        _write(content, file)


def _write(content: object, file: IO[bytes]) -> None:
    if not isinstance(content, RawContent):
        torch.save(content, file)
        return
    for part in content.parts:
        if isinstance(part, bytes):
            file.write(part)
        elif part.nbytes:
            file.write(bytes_of(part))


def save_digested(content: object, path: Path, progress: Progress) -> ManifestEntry:
    """Write to a new file, which is on the disk, not only in the page cache, on return.

    Raises `OSError` if it cannot be written.
    """
    if content is WRITTEN:
        return _digest_written(path, progress)
    with path.open("xb") as file:
        digested = HashingFile(file, progress)
        try:
            _write(content, cast("IO[bytes]", digested))  # It calls `write` and `flush`, nothing else.
        except RuntimeError as error:
            # After a failed write torch still ends the archive, and hides the failure behind what that runs into.
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
        file.flush()
        os.fsync(file.fileno())
    return digested.entry()


def _digest_written(path: Path, progress: Progress) -> ManifestEntry:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = os.fstat(file.fileno()).st_size
    progress(size)
    return {"bytes": size, "sha256": sha256}


def save_sparse(content: object, path: Path) -> None:
    """Write to a new file with holes in place of the bytes of fake tensors."""
    if not isinstance(content, RawContent):
        with torch.serialization.skip_data(materialize_fake_tensors=True):
            torch.save(content, path)
        return
    with path.open("xb") as file:
        for part in content.parts:
            if isinstance(part, bytes):
                file.write(part)
            else:
                file.seek(part.nbytes, os.SEEK_CUR)
        file.truncate()


def written(path: Path, folder: Path, save: Save[Saved]) -> dict[str, Saved]:
    """Return what `save` returns for the files that a foreign library has written at `path`, a file or a folder."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return {str(file.relative_to(folder)): save(WRITTEN, file) for file in files}


def map_torch(path: Path) -> Any:
    """Return the content of a `torch.save` file, mapped: values are read when they are used."""
    with warnings.catch_warnings(action="ignore"):  # torch warns of sparse and quantised tensors beside a state dict.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
