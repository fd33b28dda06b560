"""Strict reader of the zip archive that `torch.save` writes.

A zip describes every record twice: in a local header before it, and in the directory at the end. Readers differ in
which one they use, and skip bytes that neither describes; here both have to agree, and to account for every byte of
the file. Torch stores records uncompressed, fills the extra field of a local header so that its
record is aligned, and writes the sizes and the CRC-32 behind the record.
"""

import os
import re
import struct
import zlib
from collections import Counter
from dataclasses import dataclass

from model.examine.mishaps import AGAIN, FIRST_BYTES, mishap
from model.examine.zip_directory import (
    EXTRA,
    FULL32,
    HAS_DESCRIPTOR,
    MOST_INDEX_BYTES,
    DirectoryEntry,
    MalformedFile,
    extra_numbers,
    pread,
    read_directory,
)

CHUNK_BYTES = 4 * 2**20

# The names of records that `torch.save` writes, below the one folder of the archive.
_KNOWN = re.compile(
    r"data\.pkl|byteorder|version|\.format_version|\.storage_alignment|\.data/serialization_id|data/\d+"
)
_TORCHSCRIPT = re.compile(r"[^/]+/(constants\.pkl|code/.*)")

_LOCAL = struct.Struct("<4s5H3I2H")
_DESCRIPTOR = struct.Struct("<4s3I")
_DESCRIPTOR64 = struct.Struct("<4sI2Q")

_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


@dataclass(frozen=True, slots=True)
class ZipRecord:
    """The place of a record in the file, in bytes."""

    header: int
    start: int
    bytes: int
    crc32: int


def read_archive(descriptor: int) -> dict[str, ZipRecord]:
    """Return the records of an open file by their names below the archive's folder.

    Reads headers only, at most `MOST_INDEX_BYTES`. Raises `MalformedFile` unless the file is, from its first
    byte to its last, a zip as `torch.save` writes it.
    """
    size = os.fstat(descriptor).st_size
    _check_beginning(pread(descriptor, min(size, FIRST_BYTES), 0))
    entries, start = read_directory(descriptor, size)
    root = _check_names(descriptor, entries)
    records, place = {}, 0
    for entry in entries:
        if entry.compressed:
            raise MalformedFile(f"has a compressed record {entry.name}, and torch.save compresses none: save it again")
        if entry.marked:
            raise MalformedFile(f"has a record {entry.name} with marks that torch.save does not make")
        if entry.header != place:
            raise MalformedFile(
                f"has a record {entry.name} that starts at byte {entry.header:,}, where {place:,} would be next"
            )
        record = _read_header(descriptor, entry, start)
        place = _end_of(descriptor, entry, record)
        records[entry.name.removeprefix(root)] = record
    if place != start:
        raise MalformedFile(f"has bytes {place:,} to {start:,} that belong to no record")
    return records


def read_record(descriptor: int, record: ZipRecord, name: str) -> bytes:
    """Read a small record, and verify its CRC-32."""
    if record.bytes > MOST_INDEX_BYTES:
        raise MalformedFile(f"has a {name} of {record.bytes:,} bytes, more than any checkpoint")
    content = pread(descriptor, record.bytes, record.start)
    if zlib.crc32(content) != record.crc32:
        raise MalformedFile(f"has a damaged {name}, whose CRC-32 is not the one that was written: {AGAIN}")
    return content


def check_crc(descriptor: int, record: ZipRecord) -> bool:
    """Return whether a record of any length has the CRC-32 that was written."""
    crc32, place, end = 0, record.start, record.start + record.bytes
    while place < end:
        chunk = pread(descriptor, min(CHUNK_BYTES, end - place), place)
        crc32, place = zlib.crc32(chunk, crc32), place + len(chunk)
    return crc32 == record.crc32


def _check_beginning(first: bytes) -> None:
    """Raise `MalformedFile`, with what the file is instead, for first bytes that no zip has."""
    if text := mishap(first):
        raise MalformedFile(text)
    if first.startswith(b"PK\3\4"):
        return
    if first.startswith(_LEGACY):
        raise MalformedFile("is in the format of torch before 1.6: load it with torch.load, and save it again")
    if first.startswith(b"\x80"):
        raise MalformedFile("is a bare pickle, not a file of torch.save: save the state dict with torch.save")
    if first.startswith(b"PK\5\6"):
        raise MalformedFile(f"is an empty zip: {AGAIN}")
    if first[8:9] == b"{":
        raise MalformedFile(f"is a safetensors file, where one of torch.save is expected: {AGAIN}")
    raise MalformedFile("does not start with the header of a file of torch.save: name another file")


def _check_names(descriptor: int, entries: list[DirectoryEntry]) -> str:
    """Return the folder of all records; raise, with what it is instead, for another archive."""
    names = [entry.name for entry in entries]
    root = names[0].partition("/")[0] + "/" if names else "/"
    if any(_TORCHSCRIPT.fullmatch(name) for name in names):
        raise MalformedFile("is a TorchScript archive, which holds a program: save the state dict of the model")
    if f"{root}data.pkl" not in names:
        for entry in entries:
            lengths = pread(descriptor, EXTRA.size, entry.header + _LOCAL.size - EXTRA.size)
            start = entry.header + _LOCAL.size + sum(EXTRA.unpack(lengths))
            if pread(descriptor, 4, start) == b"PK\3\4":
                raise MalformedFile(f"is a zip that holds the checkpoint {entry.name}: unpack it")
        raise MalformedFile("is a zip that torch.save did not write, as it has no data.pkl: name another file")
    for name in names:
        if not name.startswith(root) or not _KNOWN.fullmatch(name.removeprefix(root)):
            raise MalformedFile(f"has a record {name}, which torch.save does not write")
    if len(counts := Counter(names)) < len(names):
        raise MalformedFile(f"has two records {counts.most_common(1)[0][0]}")
    return root


def _read_header(descriptor: int, entry: DirectoryEntry, limit: int) -> ZipRecord:
    """Read the local header of a record, which has to agree with the directory; the record ends before `limit`."""
    fixed = pread(descriptor, _LOCAL.size, entry.header)
    signature, _, flags, method, _, _, crc32, stored, plain, name_length, extra_length = _LOCAL.unpack(fixed)
    rest = pread(descriptor, name_length + extra_length, entry.header + _LOCAL.size)
    if signature != b"PK\3\4" or (flags, method, rest[:name_length]) != (entry.flags, 0, entry.name.encode()):
        raise MalformedFile(f"has a record {entry.name} whose own header says something else than the directory")
    extra_numbers(rest[name_length:], entry.name)
    if not (flags & HAS_DESCRIPTOR and (crc32, stored, plain) == (0, 0, 0)) and (
        (crc32, stored, plain) != (entry.crc32, entry.bytes, entry.bytes)
    ):
        raise MalformedFile(f"has a record {entry.name} of another size in its own header than in the directory")
    start = entry.header + _LOCAL.size + len(rest)
    if start + entry.bytes > limit:
        raise MalformedFile(f"has a record {entry.name} of {entry.bytes:,} bytes, more than are there")
    return ZipRecord(entry.header, start, entry.bytes, entry.crc32)


def _end_of(descriptor: int, entry: DirectoryEntry, record: ZipRecord) -> int:
    """Return the start of the next header: behind the record and its data descriptor."""
    end = record.start + record.bytes
    if not entry.flags & HAS_DESCRIPTOR:
        return end
    large = max(record.bytes, record.header) >= FULL32
    kind = _DESCRIPTOR64 if large else _DESCRIPTOR
    if kind.unpack(pread(descriptor, kind.size, end)) != (b"PK\7\x08", record.crc32, record.bytes, record.bytes):
        raise MalformedFile(f"has a record {entry.name} that is followed by another size or CRC-32 than its own")
    return end + kind.size
