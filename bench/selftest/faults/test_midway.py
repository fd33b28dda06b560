"""Checkpoints that are changed while they are in use, or whose making is cut short: told, and never taken for whole."""

import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.measure.case import Case
from bench.measure.jobs import load_job
from bench.measure.load_process import run_load
from bench.meters.child import Job
from bench.meters.measure import measure
from bench.meters.process import LoadDied, LoadFailed
from bench.strategies import STRATEGIES, Load
from bench.strategies.mmap_assign import mmap_assign
from bench.strategies.sequential import sequential
from model.checkpoints.cache import CheckpointCache
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.file_identity import file_identities
from model.checkpoints.making import make
from model.checkpoints.manifest import misfit
from model.checkpoints.specification import Specification
from model.examine.trust import UntrustedCheckpoint
from model.gpt2 import REHEARSAL
from model.layouts.layouts import LAYOUTS
from model.verification.verify import check_model, check_structure

CPU = torch.device("cpu")
LIMIT_SECONDS = 60.0

# The folder of the checkpoint that a fault is for; a rehearsal lies elsewhere.
TARGET = "target"

NOBODY = 65534

Build = Callable[[], nn.Module]
Change = Callable[[Path], object]
InAProcess = Callable[[Callable[[torch.device], object]], object]


def specification(layout: str = "torch", dtype: str = "float32") -> Specification:
    return Specification(REHEARSAL, dtype, layout)


def made(folder: Path, layout: str = "torch") -> Checkpoint:
    """A checkpoint whose files are known, as they are of one of the cache."""
    make(specification(layout), folder, lambda _: None)
    return Checkpoint(specification(layout), folder, file_identities(folder))


def whole(folder: Path, layout: str) -> bool:
    return misfit(specification(layout), folder / specification(layout).name) is None


def truncate(path: Path) -> None:
    os.truncate(path, 4096)


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(8192))


def replace_file(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(bytes(path.stat().st_size))
    other.replace(path)


def change_after(load: Load, change: Change, build: Build, path: Path, device: torch.device) -> nn.Module:
    model = load(build, path, device)
    if TARGET in path.parts:
        change(path)
    return model


def change_before(load: Load, change: Change, build: Build, path: Path, device: torch.device) -> nn.Module:
    if TARGET in path.parts:
        change(path)
    return load(build, path, device)


def job_with(folder: Path, strategy: str, change: Change) -> Job:
    case = Case(strategy, REHEARSAL, "cpu", "float32")
    load = partial(change_after, case.strategy.load, change)
    return load_job(case, load, made(folder / TARGET), made(folder / "rehearsal"))


def test_a_file_cut_while_it_is_mapped_ends_its_own_process_alone(tmp_path: Path) -> None:
    with pytest.raises(LoadDied, match=r"killed by SIGBUS, a mapped file that was cut or could not be read$"):
        measure(job_with(tmp_path, "mmap_assign", truncate), LIMIT_SECONDS)


@pytest.mark.parametrize(
    ("strategy", "change", "reason"),
    [
        ("mmap_assign", overwrite, "was written to while it was in use"),
        ("mmap_assign", replace_file, "was replaced by another file while it was in use"),
        ("sequential", truncate, r"was changed from [\d,]+ bytes to 4,096 while it was in use"),
        ("sequential", Path.unlink, "was sound, and can no longer be found: No such file or directory"),
    ],
)
def test_a_file_changed_after_it_was_loaded_is_told(tmp_path: Path, strategy: str, change: Change, reason: str) -> None:
    """The check holds the model against the file, so the file has to be the one that it was."""
    with pytest.raises(LoadFailed, match=rf"(?m)^UntrustedCheckpoint: \S+{TARGET}/checkpoint\.pt {reason}$"):
        measure(job_with(tmp_path, strategy, change), LIMIT_SECONDS)


def test_a_mapped_file_that_is_replaced_stays_what_it_was(tmp_path: Path) -> None:
    sound, target = made(tmp_path / "sound"), made(tmp_path / TARGET)
    model = run_load(mmap_assign, target, CPU)
    replace_file(target.path)
    check_model(sound, CPU, model)
    for check in (check_model, check_structure):
        with pytest.raises(UntrustedCheckpoint, match="was replaced by another file"):
            check(target, CPU, model)


@pytest.mark.parametrize("change", [truncate, replace_file, Path.unlink])
def test_a_file_changed_before_it_is_loaded_is_told(tmp_path: Path, change: Change) -> None:
    target = made(tmp_path / TARGET)
    with pytest.raises(UntrustedCheckpoint) as caught:
        run_load(partial(change_before, sequential, change), target, CPU)
    assert caught.value.file == target.path
    assert isinstance(caught.value.__cause__, Exception)


def test_a_file_swapped_for_another_sound_one_is_told(tmp_path: Path) -> None:
    """The identity of the file differs, not its content."""
    sound, target = made(tmp_path / "sound"), made(tmp_path / TARGET)
    shutil.copyfile(sound.path, target.path.with_name("other"))
    target.path.with_name("other").replace(target.path)
    with pytest.raises(UntrustedCheckpoint, match="was replaced by another file"):
        check_model(target, CPU, run_load(sequential, target, CPU))


@pytest.fixture(scope="module")
def in_a_process(tmp_path_factory: pytest.TempPathFactory) -> InAProcess:
    """Does something in a process of its own; raises as `measure` does if it fails or dies."""
    checkpoint = made(tmp_path_factory.mktemp("checkpoints") / "rehearsal")
    job = load_job(Case("sequential", REHEARSAL, "cpu", "float32"), sequential, checkpoint, checkpoint)
    return lambda do: measure(replace(job, rehearse=do), LIMIT_SECONDS)


def load_unprivileged(load: Load, checkpoint: Checkpoint, sound: Checkpoint, device: torch.device) -> None:
    """Load as a user without permissions; imports are done before, as the user with them."""
    run_load(load, sound, device)
    if os.geteuid() == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    run_load(load, checkpoint, device)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_file_that_may_not_be_read_is_told(in_a_process: InAProcess, tmp_path: Path, strategy: str) -> None:
    layout = STRATEGIES[strategy].layout
    sound = made(tmp_path / "sound", layout)
    # Not below `tmp_path`, which is closed to others as a whole.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        target = made(Path(folder, TARGET), layout)
        locked = target.path if target.path.is_file() else target.path / "final_norm.scale.pt"
        locked.chmod(0)
        with pytest.raises(
            LoadFailed, match=rf"(?m)^UntrustedCheckpoint: {locked}.* cannot be read: Permission denied$"
        ):
            in_a_process(partial(load_unprivileged, STRATEGIES[strategy].load, target, sound))


def left_on(folder: Path) -> list[str]:
    """Everything but locks, which are empty."""
    return [path.name for path in folder.iterdir() if path.suffix != ".lock"]


def make_on_a_full_disk(folder: Path, layout: str, device: torch.device) -> None:
    """A file may have so many bytes and no more: a write fails, as on a full disk, wherever torch is with it."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 1, 100, 1000, 2500, 4096):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
        with closing(CheckpointCache(folder, print)) as cache:
            with pytest.raises(OSError, match="File too large"):
                cache.get(specification(layout))
            assert left_on(folder) == []
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    with closing(CheckpointCache(folder, print)) as cache:
        cache.get(specification(layout))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_write_that_fails_leaves_nothing_half_made(in_a_process: InAProcess, tmp_path: Path, layout: str) -> None:
    (tmp_path / "cache").mkdir()
    in_a_process(partial(make_on_a_full_disk, tmp_path / "cache", layout))
    assert left_on(tmp_path / "cache") == [specification(layout).name]
    assert whole(tmp_path / "cache", layout)


# What Python tells its auditors before it is done to the file system.
FILE_EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}


def make_until(moment: int | None, folder: Path, layout: str, log: Path, device: torch.device) -> None:
    """Make a checkpoint, and be killed when so many things have been done to its folder or written; log them."""
    reached: list[str] = []
    with log.open("w", buffering=1) as file:

        def reach(what: str) -> None:
            if len(reached) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            reached.append(what)
            file.write(f"{what}\n")

        def listen(event: str, arguments: tuple[object, ...]) -> None:
            if event in FILE_EVENTS and str(arguments[0]).startswith(str(folder)):
                reach(f"{event} {Path(str(arguments[0])).name}")

        sys.addaudithook(listen)
        with closing(CheckpointCache(folder, print, lambda *_: nullcontext(lambda _: reach("progress")))) as cache:
            cache.get(specification(layout))
    os._exit(0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_checkpoint_whose_making_was_killed_is_never_taken_for_whole(
    in_a_process: InAProcess, tmp_path: Path, layout: str
) -> None:
    """At any moment: before a file or folder is made or renamed, and between two writes."""
    log = tmp_path / "log"

    def kill_at(moment: int | None) -> Path:
        folder = tmp_path / f"cache-{moment}"
        folder.mkdir()
        ending = "it exited with status 0" if moment is None else "killed by SIGKILL"
        with pytest.raises(LoadDied, match=ending):
            in_a_process(partial(make_until, moment, folder, layout, log))
        return folder

    kill_at(None)
    moments = log.read_text().splitlines()
    assert f"os.rename {specification(layout).name}.unfinished" in moments
    assert "open manifest.json" in moments
    rare = [place for place, what in enumerate(moments) if moments.count(what) < 3 and not what.endswith(".pt")]
    often = [place for place in range(len(moments)) if place not in rare]
    for moment in (*rare, *often[:: len(often) // 2]):
        folder = kill_at(moment)
        assert not (folder / specification(layout).name).exists() or whole(folder, layout), moments[moment]
        with closing(CheckpointCache(folder, print)) as cache:
            assert misfit(specification(layout), cache.get(specification(layout)).folder) is None, moments[moment]
        assert left_on(folder) == [specification(layout).name]
