"""The stand-in can be built and shared, and leaves nothing behind. Skipped where it cannot be built."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bench.meters.driver import build
from bench.meters.driver.build import CannotBuild, library
from bench.meters.driver.card import CardSettings
from bench.meters.driver.launcher import card, start_card
from bench.meters.driver.variables import CARD, MEMORY
from bench.selftest.documents.markdown import snippets

ROOT = Path(__file__).parents[3]
GIB, TIB = 2**30, 2**40
LIMIT_SECONDS = 500
QUIET = {"TORCH_CPP_LOG_LEVEL": "ERROR"}

# Tests that want a device: they are skipped in a process that has none.
ON_DEVICE = (
    "bench/meters/driver/test_device.py",
    "bench/meters/driver/test_late_copies.py",
    "bench/meters/test_cuda.py",
    "bench/meters/test_cuda_path.py",
    "bench/selftest/test_cuda_faults.py",
)


@pytest.fixture
def _built() -> None:
    try:
        build.require_parts()
    except CannotBuild as error:
        pytest.skip(str(error))


@pytest.fixture
def processes() -> Iterator[list["subprocess.Popen[str]"]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def python(lines: str, environ: dict[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", lines], env=environ | QUIET, text=True, stdin=-1, stdout=-1, stderr=-1
    )


def wait_until_there(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"


@pytest.mark.usefixtures("_built")
def test_what_wants_a_device_passes_on_a_late_one() -> None:
    """Run the same tests as on a real GPU, except those of the stand-in itself."""
    with card([2 * GIB, GIB, TIB], late=True) as environ:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *ON_DEVICE, "-q", "-p", "no:cacheprovider", "--benchmark-disable"],
            cwd=ROOT,
            env=environ | QUIET,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_SECONDS,
        )
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout.splitlines()[-1], done.stdout


@pytest.mark.usefixtures("_built")
def test_a_card_counts_more_than_any_machine_has_if_it_keeps_no_byte() -> None:
    lines = "import torch; kept = torch.ones(1 << 36, device='cuda'); print(torch.cuda.memory_reserved() >> 30)"
    with card([TIB], discards=True) as environ:
        assert python(lines, environ).communicate()[0] == "256\n"


@pytest.mark.usefixtures("_built")
def test_expandable_segments_of_many_streams_have_addresses() -> None:
    lines = """
import torch
kept = []
for stream in [torch.cuda.Stream() for _ in range(8)]:
    with torch.cuda.stream(stream):
        kept += [torch.empty(size, device="cuda") for size in (1, 1 << 22)]
print(torch.cuda.memory_reserved() >> 20)
"""
    with card([40 * GIB], discards=True) as environ:
        expandable = environ | {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
        assert python(lines, expandable).communicate()[0] == f"{8 * (2 + 20)}\n"


@pytest.mark.usefixtures("_built")
def test_eight_processes_use_eight_devices() -> None:
    lines = """
import multiprocessing, torch
meeting = multiprocessing.Barrier(8)
def use(device):
    kept = torch.ones(1 << 20, device=device)
    meeting.wait(60)
processes = [multiprocessing.Process(target=use, args=(device,)) for device in range(8)]
for process in processes: process.start()
for process in processes: process.join()
print([process.exitcode for process in processes])
"""
    with card([80 * GIB] * 8, discards=True) as environ:
        assert python(lines, environ).communicate()[0] == f"{[0] * 8}\n"


@pytest.mark.usefixtures("_built")
def test_processes_share_a_card_and_leave_nothing_behind(processes: list["subprocess.Popen[str]"]) -> None:
    holding = "import torch; kept = torch.ones(1 << 26, device='cuda'); print('there', flush=True); input()"
    asking = "import torch; free, total = torch.cuda.mem_get_info(); print((total - free) >> 20)"
    with card([2 * GIB]) as one, card([2 * GIB]) as other:
        names = [environ[CARD] for environ in (one, other)]
        holder = python(holding, one)
        processes.append(holder)
        wait_until_there(holder)
        # A card of another run knows nothing of it.
        asked = [python(asking, environ) for environ in (one, other)]
        assert [process.communicate()[0] for process in asked] == ["256\n", "0\n"]
        assert all(f"@{name}" in Path("/proc/net/unix").read_text() for name in names)
        holder.kill()
        holder.communicate()
        assert python(asking, one).communicate()[0] == "0\n"
    assert not any(f"@{name}" in Path("/proc/net/unix").read_text() for name in names)


@pytest.mark.usefixtures("_built")
def test_a_process_that_outlives_its_card_ends_with_a_line(processes: list["subprocess.Popen[str]"]) -> None:
    began = "import torch; torch.ones(1, device='cuda'); print('there', flush=True); input()"
    with card([GIB]) as environ:
        process = python(f"{began}; torch.ones(1 << 22, device='cuda')", environ)
        processes.append(process)
        wait_until_there(process)
    _, told = process.communicate("\n", timeout=60)
    assert "CUDA error: the process of the stand-in for a GPU has ended; start the run again" in told


@pytest.mark.usefixtures("_built")
def test_the_environment_is_that_of_this_process_but_for_the_stand_in() -> None:
    with card([GIB]) as environ:
        changed = {key for key in environ if environ[key] != os.environ.get(key)}
    assert changed == {"LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", CARD, MEMORY}


def test_more_devices_or_memory_than_the_stand_in_has_room_for_are_refused() -> None:
    with pytest.raises(CannotBuild, match="the stand-in for a GPU has 8 devices at most, not 9"):
        start_card(CardSettings((GIB,) * 9), "", {})
    with pytest.raises(CannotBuild, match=r"a device of the stand-in has 1 TiB at most, not 1,099,511,627,777 bytes"):
        start_card(CardSettings((TIB + 1,)), "", {})


def test_another_system_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(CannotBuild, match="the stand-in for a GPU runs on Linux, not on darwin; use --device sim"):
        library(tmp_path)


def test_a_torch_without_cuda_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(CannotBuild, match=r"needs a CUDA build of torch, and .* is none; install one"):
        library(tmp_path)


@pytest.mark.parametrize("tool", ["cc", "nm"])
def test_a_missing_tool_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tool: str) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(shutil, "which", lambda name: None if name == tool else f"/bin/{name}")
    with pytest.raises(CannotBuild, match=f"is built with {tool}, which is not installed; install gcc and binutils"):
        library(tmp_path)


@pytest.mark.usefixtures("_built")
def test_a_compiler_that_fails_is_told_in_its_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cuda.h").write_text("#error no header\n")
    (tmp_path / "cuda_runtime_api.h").write_text("")
    monkeypatch.setattr(build, "_headers", lambda: tmp_path)
    with pytest.raises(CannotBuild, match=r"cannot be built: cc: .*error.*no header"):
        library(tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_folder_that_cannot_be_preloaded_from_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build, "require_parts", lambda: None)
    with pytest.raises(CannotBuild, match="for its spaces or colons; set XDG_CACHE_HOME"):
        library(tmp_path / "my cache")


@pytest.mark.usefixtures("_built")
def test_a_library_that_is_gone_is_built_again(tmp_path: Path) -> None:
    library(tmp_path).unlink()
    assert library(tmp_path).exists()
    assert [path.name for path in tmp_path.iterdir()] == [library(tmp_path).parent.name]


@pytest.mark.usefixtures("_built")
def test_the_readmes_own_use_of_it_works(tmp_path: Path) -> None:
    [code] = snippets("bench/meters/driver/README.md")
    (tmp_path / "mine.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "mine.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "tensor([1., 1., 1.], device='cuda:0')\n"), done.stderr


def test_functions_that_torch_wants_and_nobody_has_say_their_name() -> None:
    source = build._rest(
        ["cublasSgemm_v2", "cublasGetVersion_v2", "cudaNewThing", "__cudaRegisterVar"], ["nvmlNewThing"]
    )
    assert source.splitlines()[1:] == [
        "int cublasSgemm_v2(void) { return 0; }",
        'int cublasGetVersion_v2(void) { return stand_in_lacks("cublasGetVersion_v2"); }',
        'int cudaNewThing(void) { return stand_in_lacks("cudaNewThing"); }',
        "int __cudaRegisterVar(void) { return 0; }",
        "int nvmlNewThing(void) { return 3; }",
    ]
