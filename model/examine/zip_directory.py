"""Reader of the directory at the end of a zip, with every record's name, length and place.

Layout: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

import os
import struct
from dataclasses import dataclass

from model.examine.mishaps import AGAIN

# More than the directory or the pickle of any checkpoint: that of some hundred thousand tensors.
MOST_INDEX_BYTES = 64 * 2**20

FULL16, FULL32 = 2**16 - 1, 2**32 - 1
HAS_DESCRIPTOR, NAME_IS_UTF8 = 0x8, 0x800
EXTRA = struct.Struct("<2H")

_ENTRY = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_END64_PLACE = struct.Struct("<4sIQI")
_EXTRA_ZIP64, _EXTRA_PADDING = 0x1, 0x4246  # "FB"


class MalformedFile(ValueError):
    """A fault of a file, in words that follow its name."""


class UnsoundKey(MalformedFile):
    """A fault of one key of a file, in words that follow the key."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(reason)
        self.key = key


@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    """The entry of a record in the directory."""

    name: str
    flags: int
    crc32: int
    bytes: int
    header: int
    compressed: bool
    marked: bool


def read_directory(descriptor: int, size: int) -> tuple[list[DirectoryEntry], int]:
    """Return the entries of the directory of an open file of `size` bytes, in order, and its first byte.

    Raises `MalformedFile` unless the file ends with a directory, and with nothing behind it.
    """
    start, end, count = _find_directory(descriptor, size)
    return _read_entries(pread(descriptor, end - start, start), count), start


def pread(descriptor: int, count: int, place: int) -> bytes:
    """Read `count` bytes at a place. Raises `MalformedFile` if there are fewer."""
    try:
        content = os.pread(descriptor, count, place)
    except OverflowError:
        raise MalformedFile(f"speaks of byte {place:,}, which no file has") from None
    if len(content) != count:
        raise MalformedFile(f"is cut off at byte {place + len(content):,}: {AGAIN}")
    return content


def _find_directory(descriptor: int, size: int) -> tuple[int, int, int]:
    """Return the start and the end of the directory, and its number of entries."""
    end = size - _END.size
    signature, disk, disk64, here, count, length, start, comment = (
        _END.unpack(pread(descriptor, _END.size, end)) if end >= 0 else (b"",) * 8
    )
    if signature != b"PK\5\6" or comment:
        _explain_end(descriptor, size)
    if disk or disk64 or here != count:
        raise MalformedFile("is one part of several of a zip")
    place = end - _END64_PLACE.size
    if place >= 0 and (place64 := pread(descriptor, _END64_PLACE.size, place)).startswith(b"PK\6\7"):
        small = count, length, start
        end, count, length, start = _read_end64(descriptor, place, place64)
        for value, other, full in zip(small, (count, length, start), (FULL16, FULL32, FULL32), strict=True):
            if value != min(other, full):
                raise MalformedFile("contradicts itself about its directory: it has two ends that differ")
    if start + length != end:
        raise MalformedFile(
            f"has no directory where its end says: bytes {start:,} to {start + length:,}, not to {end:,}"
        )
    if length > MOST_INDEX_BYTES:
        raise MalformedFile(f"has a directory of {length:,} bytes, more than any checkpoint's")
    return start, end, count


def _read_end64(descriptor: int, place: int, content: bytes) -> tuple[int, int, int, int]:
    _, disk, at, disks = _END64_PLACE.unpack(content)
    if at != place - _END64.size or disk or disks != 1:
        raise MalformedFile("has no second end where it says that one is")
    signature, rest, _, _, disk, disk64, here, count, length, start = _END64.unpack(pread(descriptor, _END64.size, at))
    if (signature, rest, disk, disk64, here) != (b"PK\6\6", _END64.size - 12, 0, 0, count):
        raise MalformedFile("has a second end that cannot be read")
    return at, count, length, start


def _explain_end(descriptor: int, size: int) -> None:
    """Raise `MalformedFile` for a file that does not end as a zip does, with the reason."""
    tail = min(size, FULL16 + _END.size)
    found = pread(descriptor, tail, size - tail).rfind(b"PK\5\6")
    surplus = tail - found - _END.size
    if found >= 0 and surplus > 0:
        raise MalformedFile(f"has {surplus:,} bytes behind the end of its zip")
    raise MalformedFile(f"is cut off, because the end of its zip is missing: {AGAIN}")


def _read_entries(directory: bytes, count: int) -> list[DirectoryEntry]:
    """Parse the entries of the directory, in the order of the file."""
    entries, place = [], 0
    while place < len(directory):
        entry, place = _read_entry(directory, place)
        entries.append(entry)
    if len(entries) != count:
        raise MalformedFile(f"has {len(entries):,} records in its directory, where its end says {count:,}")
    return entries


def _read_entry(directory: bytes, place: int) -> tuple[DirectoryEntry, int]:
    fixed = directory[place : place + _ENTRY.size]
    if len(fixed) < _ENTRY.size or not fixed.startswith(b"PK\1\2"):
        raise MalformedFile(f"has a directory that cannot be read from its byte {place:,} on")
    _, _, _, flags, method, _, _, crc32, stored, plain, name_length, extra_length, comment, disk, _, attributes, at = (
        _ENTRY.unpack(fixed)
    )
    place += _ENTRY.size
    end = place + name_length + extra_length
    if end > len(directory):
        raise MalformedFile("has a directory that ends within an entry")
    name = _decoded(directory[place : place + name_length])
    zip64 = extra_numbers(directory[place + name_length : end], name)
    plain, stored, at = (_take(zip64) if value == FULL32 else value for value in (plain, stored, at))
    # Attributes too: for torch a record marked as a folder is empty, and its tensor keeps uninitialised memory.
    marked = bool(comment or disk or attributes or zip64 or flags & ~(HAS_DESCRIPTOR | NAME_IS_UTF8))
    return DirectoryEntry(name, flags, crc32, plain, at, compressed=bool(method or stored != plain), marked=marked), end


def _take(values: list[int]) -> int:
    if not values:
        raise MalformedFile("has a directory that lacks the size or the place of a large record")
    return values.pop(0)


def extra_numbers(extra: bytes, name: str) -> list[int]:
    """Return the 64-bit numbers in an extra field, which may have torch's padding beside them, and nothing else."""
    values: list[int] = []
    kinds: list[int] = []
    while extra:
        if len(extra) < EXTRA.size:
            raise MalformedFile(f"has a record {name} whose extra field is cut off")
        kind, length = EXTRA.unpack(extra[: EXTRA.size])
        content, extra = extra[EXTRA.size : EXTRA.size + length], extra[EXTRA.size + length :]
        # Each kind once: thousands would take quadratic time, as each step copies the rest.
        if len(content) != length or kind not in {_EXTRA_ZIP64, _EXTRA_PADDING} or kind in kinds:
            raise MalformedFile(f"has a record {name} whose extra field torch.save does not write")
        kinds.append(kind)
        if kind == _EXTRA_ZIP64:
            values += (int.from_bytes(content[i : i + 8], "little") for i in range(0, length - 7, 8))
    return values


def _decoded(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise MalformedFile(f"has a record whose name is not UTF-8: {name!r}") from None
