"""Faults of a checkpoint, and functions that take an archive apart and write it again."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from model.examine.archive import read_archive

# Damages what a strategy is given: a file, or a folder of files.
Inject = Callable[[Path], object]

# These are written by torch's archive writer by itself.
_BY_THE_WRITER = ("version", ".data/serialization_id")


@dataclass(frozen=True)
class Fault:
    """A fault; `reason` is a pattern. `silent`: `torch.load`, mapped or not, returns wrong values without an error."""

    inject: Inject
    reason: str
    key: str | None = None
    silent: bool = False


def edited(change: Callable[[bytes], bytes]) -> Inject:
    """Change the bytes of the file."""
    return lambda path: path.write_bytes(change(path.read_bytes()))


def records_of(path: Path) -> dict[str, bytes]:
    """Read the content of every record of an archive."""
    content = path.read_bytes()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        records = read_archive(descriptor)
    finally:
        os.close(descriptor)
    return {name: content[record.start : record.start + record.bytes] for name, record in records.items()}


def write_archive(path: Path, records: Iterable[tuple[str, bytes]]) -> None:
    """Write any records to a file as `torch.save` would."""
    writer = torch._C.PyTorchFileWriter(str(path))  # noqa: SLF001 - what `torch.save` writes with
    for name, content in records:
        if name not in _BY_THE_WRITER:
            writer.write_record(name, content, len(content))
    writer.write_end_of_file()


def repacked(change: Callable[[dict[str, bytes]], object]) -> Inject:
    """Change the records, and keep the archive around them sound."""

    def inject(path: Path) -> None:
        records = records_of(path)
        change(records)
        write_archive(path, records.items())

    return inject


def resaved(change: Callable[[dict[str, Any]], object]) -> Inject:
    """Change the state dict, and save it properly."""

    def inject(path: Path) -> None:
        state_dict = torch.load(path, weights_only=True)
        change(state_dict)
        torch.save(state_dict, path)

    return inject
