"""A memory cgroup: a group of processes that the kernel kills before they hold more memory than they may.

Sources: `admin-guide/cgroup-v2.rst` and `admin-guide/cgroup-v1/memory.rst` of Linux, `org.freedesktop.systemd1(5)`.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench.meters.host import lines_of

PROC = Path("/proc")

# Time for the last process of a group to be gone.
PATIENCE_SECONDS = 5.0

HINT = "run pytest as a user who may make one, or within `systemd-run --user --scope -p Delegate=yes`"

_KILLED = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


class NoCgroup(Exception):
    """The failure to make a group with a limit; the message is the reason, in one line."""


@dataclass(frozen=True)
class CgroupFiles:
    """Names of a group's files: its limits with their values, the most it held, and its kills."""

    limits: tuple[tuple[str, str], ...]
    most: str
    events: str


# Without swap: what is swapped out takes no memory, and is not what anybody means by a budget.
V1 = CgroupFiles(
    (("memory.limit_in_bytes", "{}"), ("memory.memsw.limit_in_bytes", "{}")),
    "memory.max_usage_in_bytes",
    "memory.oom_control",
)
V2 = CgroupFiles((("memory.max", "{}"), ("memory.swap.max", "0")), "memory.peak", "memory.events")


@dataclass(frozen=True)
class Cgroup:
    """The group of one load."""

    folder: Path
    files: CgroupFiles

    def add(self, pid: int) -> None:
        """Charge what a process takes from now on to the group. Raises `NoCgroup` if this user may not."""
        try:
            (self.folder / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            raise NoCgroup(f"no process can be moved to a memory cgroup ({error.strerror}): {HINT}") from None

    def peak_bytes(self) -> int | None:
        """Return the most bytes that it held, page cache included; None where the kernel does not tell."""
        file = self.folder / self.files.most
        return int(file.read_text()) if file.exists() else None

    def has_killed(self) -> bool:
        """Return True if the kernel has killed a process of it for lack of memory."""
        # A scope is gone with its last process.
        with suppress(FileNotFoundError):
            killed = _KILLED.search((self.folder / self.files.events).read_text())
            return killed is not None and int(killed[1]) > 0
        return False


@contextmanager
def limited(limit_bytes: int, pid: int) -> Iterator[Cgroup]:
    """Limit process `pid`, and the processes it starts, to so many bytes of the memory that it takes from now on."""
    parent, files = _parent()
    folder = parent / f"weight-loading-{os.getpid()}-{pid}"
    try:
        folder.mkdir()
    except OSError as error:
        with _by_systemd(limit_bytes, pid, files, error) as group:
            yield group
        return
    try:
        group = Cgroup(folder, files)
        _set_limits(group, limit_bytes)
        group.add(pid)
        yield group
    finally:
        _remove(folder)


def _set_limits(group: Cgroup, limit_bytes: int) -> None:
    for name, value in group.files.limits:
        file = group.folder / name
        # A kernel that does not count swap has no file to limit it.
        if file.exists():
            try:
                file.write_text(value.format(limit_bytes))
            except OSError as error:
                raise NoCgroup(f"a memory cgroup cannot be limited ({error.strerror}): {HINT}") from None
        elif name == group.files.limits[0][0]:
            raise NoCgroup(f"the cgroups here do not limit memory: {HINT}")


def _remove(folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while folder.exists():
        try:
            folder.rmdir()
        except OSError:
            # A process that was killed is in it until its memory is gone.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _parent() -> tuple[Path, CgroupFiles]:
    """Return the folder for a new group that limits memory, within all limits that are in force already."""
    paths = dict(_own_paths())
    for line in lines_of(PROC / "self" / "mountinfo"):
        fields, _, rest = line.partition(" - ")
        root, mount = fields.split()[3:5]
        kind, _, options = rest.split(maxsplit=2)
        if kind == "cgroup" and "memory" in options.split(","):
            return _below(mount, root, paths["memory"]), V1
        if kind == "cgroup2" and "" in paths:
            own = _below(mount, root, paths[""])
            controllers = own / "cgroup.controllers"
            if controllers.exists() and "memory" in controllers.read_text().split():
                # A group that has processes can have none below it: the new one is beside this one.
                return (own.parent if own != Path(mount) else own), V2
    raise NoCgroup("no memory cgroup is mounted here: run where one is, or leave --host-memory out")


def _own_paths() -> Iterator[tuple[str, str]]:
    """Return the group of this process by controller; the one of version 2 has no name."""
    for line in lines_of(PROC / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            yield controller, path


def _below(mount: str, root: str, path: str) -> Path:
    """Return the folder of a group; the part from `root` on is mounted."""
    inner = path.removeprefix(root.rstrip("/")) if path.startswith(root.rstrip("/")) else ""
    return Path(mount) / inner.strip("/")


@contextmanager
def _by_systemd(limit_bytes: int, pid: int, files: CgroupFiles, error: OSError) -> Iterator[Cgroup]:
    """Make a group by a transient scope of the user's service manager, as `systemd-run --scope` does."""
    refusal = NoCgroup(f"no memory cgroup can be made here ({error.strerror}): {HINT}")
    if files is not V2 or shutil.which("busctl") is None:
        raise refusal from None
    scope = f"weight-loading-{os.getpid()}-{pid}.scope"
    properties = ("3", "PIDs", "au", "1", str(pid), "MemoryMax", "t", str(limit_bytes), "MemorySwapMax", "t", "0", "0")
    made = _manager("StartTransientUnit", "ssa(sv)a(sa(sv))", scope, "fail", *properties)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while made and (folder := _folder_of(pid)).name != scope and time.monotonic() < deadline:
        time.sleep(0.01)
    if not made or folder.name != scope:
        raise refusal from None
    try:
        yield Cgroup(folder, files)
    finally:
        _manager("StopUnit", "ss", scope, "replace")


def _manager(method: str, *arguments: str) -> bool:
    """Call a method of the user's service manager; return True if that was done."""
    service = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
    command = ("busctl", "--user", "call", *service, method, *arguments)
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(  # noqa: S603 - nothing of it is anybody else's
            command, capture_output=True, timeout=PATIENCE_SECONDS, check=False
        )
        return done.returncode == 0
    return False


def _folder_of(pid: int) -> Path:
    """Return the group of version 2 that a process is in."""
    with suppress(OSError):
        path = next(line.split(":", 2)[2] for line in lines_of(PROC / str(pid) / "cgroup") if line.startswith("0::"))
        for line in lines_of(PROC / "self" / "mountinfo"):
            fields, _, rest = line.partition(" - ")
            if rest.startswith("cgroup2 "):
                root, mount = fields.split()[3:5]
                return _below(mount, root, path)
    return Path()
