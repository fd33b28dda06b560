"""The build of the library that stands in for CUDA's runtime, driver, NVML and cuBLAS, for the installed torch."""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import torch

from model.run_folder import folder_beside

NATIVE = Path(__file__).parent / "native"
LIBRARY = "libstand_in.so"
# PyTorch opens these by name.
ALIASES = ("libcuda.so.1", "libnvidia-ml.so.1")

_FUNCTION = re.compile(r"(cuda|__cuda|cublas|nvrtc|cu)[A-Z]\w+")
_NVML_FUNCTION = re.compile(rb"nvml[A-Z]\w+")
NVML_NOT_SUPPORTED = 3
# These can succeed without doing anything: kernels are registered and set up, products are computed elsewhere.
_NOTHING_TO_DO = re.compile(
    r"__cuda\w+|cublas(?!\w*Get)\w+|nvrtc\w+|cuda(FuncSetAttribute|KernelSetAttributeForDevice|DeviceEnablePeerAccess"
    r"|MemcpyToSymbol|ProfilerStart|ProfilerStop|GraphDestroy|GraphExecDestroy|UserObjectRelease|LibraryUnload)"
)


class CannotBuild(Exception):
    """The failure to build the stand-in here; the message says in one line what is missing."""


def library(cache: Path) -> Path:
    """Return the library, built in the folder `cache` unless it is there. Raises `CannotBuild`."""
    require_parts()
    if re.search(r"[\s:]", str(cache)):
        raise CannotBuild(
            f"the stand-in for a GPU cannot be preloaded from {str(cache)!r}, for its spaces or colons; set "
            "XDG_CACHE_HOME"
        )
    sources = sorted(path for path in (*NATIVE.rglob("*.[ch]"), Path(__file__)))
    key = hashlib.sha256(f"{torch.__version__} {platform.machine()}".encode())
    for path in sources:
        key.update(path.read_bytes())
    built = cache / f"stand-in-{key.hexdigest()[:16]}" / LIBRARY
    if not built.exists():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with folder_beside(cache) as made:
                _build(made)
                built.parent.mkdir(exist_ok=True)
                for alias in ALIASES:
                    with suppress(FileExistsError):
                        (built.parent / alias).symlink_to(LIBRARY)
                # Whole at once: another run may be building it, too.
                (made / LIBRARY).replace(built)
        except OSError as error:
            raise CannotBuild(f"the stand-in for a GPU cannot be built in the cache folder: {error}") from None
    return built


def require_parts() -> None:
    """Raise `CannotBuild` unless this system, its torch and its tools can build the stand-in."""
    if sys.platform != "linux":
        raise CannotBuild(f"the stand-in for a GPU runs on Linux, not on {sys.platform}; use --device sim")
    if torch.version.cuda is None:
        raise CannotBuild(
            f"the stand-in for a GPU needs a CUDA build of torch, and {torch.__version__} is none; install one, or use "
            "--device sim"
        )
    for tool in ("cc", "nm"):
        if shutil.which(tool) is None:
            raise CannotBuild(
                f"the stand-in for a GPU is built with {tool}, which is not installed; install gcc and binutils"
            )


def _build(folder: Path) -> None:
    objects = folder / "objects"
    objects.mkdir()
    options = ["-O2", "-fPIC", "-Wall", "-Wno-deprecated-declarations", f"-I{NATIVE}", f"-I{_headers()}"]
    sources = [str(path) for path in sorted(NATIVE.glob("*.c"))]
    _run(["cc", "-c", *options, *sources], objects)
    compiled = [str(path) for path in sorted(objects.glob("*.o"))]
    here = _symbols(_run(["nm", "--defined-only", *compiled], folder))
    rest = folder / "rest.c"
    rest.write_text(_rest(sorted(_wanted() - here), sorted(_wanted_nvml() - here)))
    _run(["cc", "-shared", *options, "-o", LIBRARY, str(rest), *compiled, "-lpthread", "-ldl"], folder)


def _run(command: list[str], folder: Path) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CannotBuild(f"the stand-in for a GPU cannot be built: {command[0]}: {error.strerror}") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        told = next((line for line in lines if "error" in line), lines[0])
        raise CannotBuild(f"the stand-in for a GPU cannot be built: {command[0]}: {told}")
    return done.stdout


def _headers() -> Path:
    """Return the folder of CUDA's headers, in the wheels that torch brought, or of a CUDA that is installed."""
    packages = Path(torch.__file__).parent.parent
    folders: Iterable[Path] = (
        *sorted(packages.glob("nvidia/*/include")),
        Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "include",
    )
    for folder in folders:
        if all((folder / name).exists() for name in ("cuda.h", "cuda_runtime_api.h")):
            return folder
    raise CannotBuild("the stand-in for a GPU needs cuda_runtime_api.h, which torch does not include; set CUDA_HOME")


def _torch_libraries() -> list[Path]:
    return sorted((Path(torch.__file__).parent / "lib").glob("lib*.so"))


def _wanted() -> set[str]:
    """Return the functions of CUDA that PyTorch's libraries have from others."""
    listed = _run(["nm", "-D", "--undefined-only", *map(str, _torch_libraries())], NATIVE)
    return _symbols(listed)


def _symbols(listed: str) -> set[str]:
    names = (line.split()[-1].partition("@")[0] for line in listed.splitlines() if line.strip())
    return {name for name in names if _FUNCTION.fullmatch(name) or name.startswith("nvml")}


def _wanted_nvml() -> set[str]:
    """Return the functions that PyTorch looks for by name."""
    [path] = [path for path in _torch_libraries() if path.name == "libc10_cuda.so"]
    return {name.decode() for name in _NVML_FUNCTION.findall(path.read_bytes())}


def _rest(functions: Iterable[str], nvml_functions: Iterable[str]) -> str:
    """Return the source of all that PyTorch wants beside: none of it looks at its arguments."""
    lines = ["int stand_in_lacks(const char *name);"]
    for name in functions:
        body = "return 0;" if _NOTHING_TO_DO.fullmatch(name) else f'return stand_in_lacks("{name}");'
        lines.append(f"int {name}(void) {{ {body} }}")
    lines += [f"int {name}(void) {{ return {NVML_NOT_SUPPORTED}; }}" for name in nvml_functions]
    return "\n".join((*lines, ""))
