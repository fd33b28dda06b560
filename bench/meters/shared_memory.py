"""Shared memory: files without a disk. It takes memory while a process holds it, whoever maps it."""

import ctypes
import mmap
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.meters.driver.variables import CARD

PROC = Path("/proc")
PAGE_BYTES = mmap.PAGESIZE
SHARED_FOLDER = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory has its names

# The unit of `st_blocks`.
BLOCK_BYTES = 512
# From `sys/ipc.h`: remove a segment when its last process has released it.
IPC_RMID = 0

# A file: the number of its device, and its own there. A segment of `shmget` has no device.
Key = tuple[int, int]
SEGMENTS = -1

_MAPPING = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ ([0-9a-f]+):([0-9a-f]+) (\d+) *(.*)$", re.MULTILINE)
_HELD = re.compile(rb"^(Anonymous|Private_Clean|Private_Dirty): +(\d+) kB$", re.MULTILINE)


# Of `/proc/PID/pagemap`: a page is resident, and of a file or shared; and no other process maps it.
RESIDENT_IN_FILE, ALONE = 0b10100000, 0b00000001
_FLAGS = bytes((flags & RESIDENT_IN_FILE == RESIDENT_IN_FILE) * (1 + (flags & ALONE)) for flags in range(256))

# Where memory that a fork shares is mapped, from an address to another, with its bytes.
Stretch = tuple[int, int, int]


@dataclass(frozen=True)
class Mapped:
    """Shared memory that a process maps: bytes that it touched of every file, and those that it has alone."""

    shared: Mapping[Key, int]
    paths: Mapping[Key, Path]
    alone_bytes: int = 0


@cache
def devices() -> frozenset[int]:
    """Return the numbers of all file systems without a disk: every tmpfs, and the one that has no names."""
    found = set()
    for line in os.fsdecode((PROC / "self" / "mountinfo").read_bytes()).splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.startswith("tmpfs "):
            found.add(os.makedev(*map(int, fields.split()[2].split(":"))))
    if nameless := _nameless():
        found.add(nameless)
    return frozenset(found)


@cache
def _nameless() -> int | None:
    """Return the number of the file system of memory that has no name."""
    if not hasattr(os, "memfd_create"):
        return None
    descriptor = os.memfd_create("probe")
    try:
        return os.fstat(descriptor).st_dev
    finally:
        os.close(descriptor)


def was_there(key: Key, path: Path, since: float) -> bool:
    """Return whether a file of a tmpfs is older than a load: it was neither made nor changed `since`, in seconds."""
    with suppress(OSError):
        found = path.stat()
        return (found.st_dev, found.st_ino) == key and found.st_ctime < since
    return False


def mapped(pid: int) -> Mapped:
    """Return what a process maps of shared memory. Raises `OSError` where that cannot be read."""
    shared, alone, paths = dict[Key, int](), 0, dict[Key, Path]()
    with (PROC / str(pid) / "pagemap").open("rb", buffering=0) as pages:
        for line in _lines(pid):
            if key := _key(line):
                here, only_here = _resident(pages.fileno(), int(line[1], 16), int(line[2], 16))
                shared[key], alone = shared.get(key, 0) + here, alone + only_here
                paths[key] = Path(os.fsdecode(line[6]))
    return Mapped(shared, paths, alone)


def _resident(pages: int, start: int, end: int) -> tuple[int, int]:
    """Return the bytes of the file that are resident between two addresses, and those that no other process maps.

    Of every page the last of eight bytes has its flags. What a private mapping has written to is no page of the file.
    """
    flags = os.pread(pages, (end - start) // PAGE_BYTES * 8, start // PAGE_BYTES * 8)[7::8].translate(_FLAGS)
    return PAGE_BYTES * (flags.count(1) + flags.count(2)), PAGE_BYTES * flags.count(2)


def stretches(pid: int) -> list[Stretch]:
    """Return where a process has anonymous memory, with the bytes that another has too, by a fork."""
    found, whole = [], (PROC / str(pid) / "smaps").read_bytes()
    for match in _MAPPING.finditer(whole):
        end = whole.find(b"VmFlags:", match.end())
        held = {name: 1024 * int(kib) for name, kib in _HELD.findall(whole, match.end(), end)}
        if anonymous := held[b"Anonymous"]:
            common = max(0, anonymous - held[b"Private_Clean"] - held[b"Private_Dirty"])
            found.append((int(match[1], 16), int(match[2], 16), common))
    return found


def mapped_names(pid: int) -> dict[Key, Path]:
    """Return the files of shared memory that a process maps. Raises `OSError` where that cannot be read."""
    return {key: Path(os.fsdecode(line[6])) for line in _lines(pid) if (key := _key(line))}


def _lines(pid: int) -> Iterator["re.Match[bytes]"]:
    return _MAPPING.finditer((PROC / str(pid) / "maps").read_bytes())


def _key(line: "re.Match[bytes]") -> Key | None:
    """Return which shared memory a line of `maps` is about; None: it is about other memory."""
    if line[6].startswith(b"/SYSV"):
        return SEGMENTS, int(line[5])
    device = os.makedev(int(line[3], 16), int(line[4], 16))
    return (device, int(line[5])) if device in devices() else None


def older_bytes(pid: int, since: float) -> int | None:
    """Return the shared memory that a process maps of files older than a load; None: it maps no such file."""
    with suppress(OSError):
        found = mapped(pid)
        if older := [key for key, path in found.paths.items() if was_there(key, path, since)]:
            return sum(found.shared[key] for key in older)
    return None


def opened(pid: int, since: float) -> Iterator[tuple[Key, Path, int]]:
    """Yield every file of shared memory that a process has open, and made or changed `since`, with its bytes."""
    with suppress(OSError), os.scandir(PROC / str(pid) / "fd") as entries:
        for entry in entries:
            with suppress(OSError):
                found = Path(entry).stat()
                if found.st_dev in devices() and stat.S_ISREG(found.st_mode) and found.st_ctime >= since:
                    path = Path(entry).readlink()
                    # The memory of the stand-in for a GPU.
                    if not (CARD in os.environ and path.name.startswith("memfd:device")):
                        yield (found.st_dev, found.st_ino), path, found.st_blocks * BLOCK_BYTES


def segments(pids: Collection[int]) -> dict[Key, int]:
    """Return the segments of `shmget` that these processes have made, with the bytes of each."""
    found = {}
    with suppress(OSError):
        names, *rows = (line.split() for line in (PROC / "sysvipc" / "shm").read_text().splitlines())
        for row in (dict(zip(names, map(int, fields), strict=True)) for fields in rows):
            if row["cpid"] in pids:
                found[SEGMENTS, row["shmid"]] = row["rss"]
    return found


def held(files: Mapping[Key, Path]) -> dict[Key, int]:
    """Return the bytes of those of these files that are still there."""
    found = {}
    for key, path in files.items():
        with suppress(OSError):
            now = path.stat()
            if (now.st_dev, now.st_ino) == key:
                found[key] = now.st_blocks * BLOCK_BYTES
    return found


def names() -> frozenset[str]:
    """Return what lies in the folder of shared memory."""
    with suppress(OSError):
        return frozenset(path.name for path in SHARED_FOLDER.iterdir())
    return frozenset()


def remove(files: Mapping[Key, Path], pids: Collection[int], before: Collection[str]) -> None:
    """Remove these files of the folder of shared memory, unless they lie in what was there `before`, and segments."""
    for key, path in files.items():
        if path.is_relative_to(SHARED_FOLDER) and path.relative_to(SHARED_FOLDER).parts[0] not in before:
            with suppress(OSError):
                found = path.stat()
                if (found.st_dev, found.st_ino) == key:
                    path.unlink()
    for _, number in segments(pids):
        ctypes.CDLL(None).shmctl(number, IPC_RMID, None)
