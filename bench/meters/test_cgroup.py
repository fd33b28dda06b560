import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.meters import cgroup
from bench.meters.cgroup import V1, V2, Cgroup, NoCgroup, limited

MIB = 2**20
# Holds more and more memory as soon as it is told to.
HUNGRY = "import sys; sys.stdin.readline(); held = []\nwhile True: held.append(bytearray(2**20))"
# What a group of version 2 and one of version 1 have.
V1_FILES = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "cgroup.procs")
V2_FILES = ("memory.max", "memory.swap.max", "cgroup.procs")


@pytest.fixture
def hungry() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([sys.executable, "-I", "-c", HUNGRY], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("mib", [40, 80])
def test_a_process_is_killed_at_its_limit(hungry: "subprocess.Popen[bytes]", mib: int) -> None:
    try:
        with limited(mib * MIB, hungry.pid) as group:
            assert not group.has_killed()
            hungry.communicate(b"\n")
            assert hungry.returncode == -9
            assert group.has_killed()
            peak = group.peak_bytes()
            assert peak is None or (mib - 2) * MIB < peak <= mib * MIB
    except NoCgroup as error:
        pytest.skip(str(error))
    assert not group.folder.exists()


def make(folder: Path) -> None:
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - `Path.mkdir` is what the kernel does here


class Machine:
    """A system on which this process is in a group, made of folders."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.root = folder, folder / "cgroups"
        monkeypatch.setattr(cgroup, "PROC", folder / "proc")
        monkeypatch.setattr(cgroup, "PATIENCE_SECONDS", 0.2)
        monkeypatch.setattr(cgroup, "_remove", lambda _: None)
        make_group = Path.mkdir

        def mkdir(path: Path, *args: object, **options: object) -> None:
            """Make the folder as the kernel does it: with its files, and not for every user."""
            if path.parent in self.closed:
                raise PermissionError(13, "Permission denied")
            make_group(path)
            for name in self.files:
                (path / name).touch()

        monkeypatch.setattr(Path, "mkdir", mkdir)
        self.closed: set[Path] = set()
        self.files: tuple[str, ...] = ()
        make(folder / "proc" / "self")

    def within(self, *groups: str, mounts: str, controllers: str = "") -> None:
        (self.folder / "proc" / "self" / "cgroup").write_text("\n".join(groups))
        (self.folder / "proc" / "self" / "mountinfo").write_text(mounts.format(root=self.root))
        for group in groups:
            own = Path(f"{self.root}{group.split(':', 2)[2]}")
            make(own)
            (own / "cgroup.controllers").write_text(controllers)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


V2_MOUNT = "30 20 0:26 / {root} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1_MOUNT = "30 20 0:26 / {root} rw,nosuid - cgroup cgroup rw,memory"


def contents(group: Cgroup) -> dict[str, str]:
    return {file.name: file.read_text() for file in group.folder.iterdir()}


def test_a_group_of_version_2_is_made_beside_the_own_one(machine: Machine) -> None:
    machine.within("0::/user.slice/app.slice/run.scope", mounts=V2_MOUNT, controllers="cpu memory pids")
    machine.files = V2_FILES
    with limited(7 * MIB, 4711) as group:
        assert group.folder.parent == machine.root / "user.slice" / "app.slice"
        assert group.files is V2
        assert contents(group) == {"memory.max": str(7 * MIB), "memory.swap.max": "0", "cgroup.procs": "4711"}


def test_one_of_version_1_is_made_below_the_own_one(machine: Machine) -> None:
    """Within its limits; the version 2 that is there too has no memory to limit."""
    mounts = f"{V2_MOUNT.replace('{root}', '{root}/unified')}\n{V1_MOUNT}"
    machine.within("4:memory:/box", "0::/", mounts=mounts)
    machine.files = V1_FILES
    with limited(7 * MIB, 4711) as group:
        assert group.folder.parent == machine.root / "box"
        assert group.files is V1
        assert (
            contents(group)["memory.limit_in_bytes"] == contents(group)["memory.memsw.limit_in_bytes"] == str(7 * MIB)
        )


def test_of_a_container_only_a_part_is_mounted(machine: Machine) -> None:
    machine.within("4:memory:/docker/abc/inner", mounts=V1_MOUNT.replace("0:26 /", "0:26 /docker/abc"))
    make(machine.root / "inner")
    machine.files = V1_FILES
    with limited(MIB, 4711) as group:
        assert group.folder.parent == machine.root / "inner"


def test_where_swap_is_not_counted_there_is_nothing_to_limit(machine: Machine) -> None:
    machine.within("4:memory:/box", mounts=V1_MOUNT)
    machine.files = ("memory.limit_in_bytes", "cgroup.procs")
    with limited(MIB, 4711) as group:
        assert contents(group) == {"memory.limit_in_bytes": str(MIB), "cgroup.procs": "4711"}


@pytest.mark.parametrize("controllers", ["", "cpu pids"])
def test_without_a_memory_controller_the_reason_is_told(machine: Machine, controllers: str) -> None:
    machine.within("0::/box", mounts=V2_MOUNT, controllers=controllers)
    with pytest.raises(NoCgroup, match="no memory cgroup is mounted here"), limited(MIB, 4711):
        pass


def test_a_user_who_may_not_make_one_is_told_how_to(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.within("0::/user.slice/session-3.scope", mounts=V2_MOUNT, controllers="memory")
    machine.closed = {machine.root / "user.slice"}
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NoCgroup) as caught, limited(MIB, 4711):
        pass
    assert str(caught.value) == (
        "no memory cgroup can be made here (Permission denied): run pytest as a user who may make one, or within "
        "`systemd-run --user --scope -p Delegate=yes`"
    )


BUSCTL = """#!/bin/sh
echo "$@" >> {folder}/asked
case "$*" in
  *StartTransientUnit*) {then} ;;
esac
"""


@pytest.mark.parametrize("moves", [True, False])
def test_a_user_with_a_service_manager_has_it_make_a_scope(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, moves: bool
) -> None:
    machine.within("0::/user.slice/session-3.scope", mounts=V2_MOUNT, controllers="memory")
    machine.closed = {machine.root / "user.slice"}
    scope = f"weight-loading-{os.getpid()}-4711.scope"
    make(machine.folder / "proc" / "4711")
    (machine.folder / "proc" / "4711" / "cgroup").write_text("0::/user.slice/session-3.scope")
    make(machine.root / "app.slice" / scope)
    (machine.root / "app.slice" / scope / "memory.events").write_text("oom 1\noom_kill 1\n")
    moved = f"/bin/echo 0::/app.slice/{scope} > {machine.folder}/proc/4711/cgroup" if moves else "exit 1"
    busctl = machine.folder / "busctl"
    busctl.write_text(BUSCTL.format(folder=machine.folder, then=moved))
    busctl.chmod(0o755)
    monkeypatch.setenv("PATH", str(machine.folder))
    if not moves:
        with pytest.raises(NoCgroup, match="no memory cgroup can be made here"), limited(7 * MIB, 4711):
            pass
        return
    with limited(7 * MIB, 4711) as group:
        assert group.folder == machine.root / "app.slice" / scope
        assert group.has_killed()
        assert group.peak_bytes() is None
    started, stopped = (machine.folder / "asked").read_text().splitlines()
    manager = "--user call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager"
    assert started == (
        f"{manager} StartTransientUnit ssa(sv)a(sa(sv)) {scope} fail 3 PIDs au 1 4711 MemoryMax t {7 * MIB} "
        f"MemorySwapMax t 0 0"
    )
    assert stopped == f"{manager} StopUnit ss {scope} replace"
