"""Environments that `uv` makes and caches, with the packages of the running one but for what is compared."""

import re
import subprocess
import sys
from collections.abc import Collection, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from model.installation import pip_install

# uv says so where no versions fit together. No other versions mend other errors.
_UNRESOLVABLE = "No solution found"


class UvFailed(Exception):
    """One line: uv's message."""


def require_uv() -> None:
    """Raise `ValueError` with the remedy where uv is not installed."""
    if find_spec("uv") is None:
        raise ValueError(f"--versus: uv makes the environments, and is not installed; run {pip_install('versus')}")


def pins(without: Collection[str]) -> list[str]:
    """List the distributions of the running environment as `name==version`, less those named by requirements."""
    left_out = {canonicalize_name(Requirement(text).name) for text in without if text}
    # The first of a name is the one that is imported.
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        found.setdefault(canonicalize_name(distribution.metadata["Name"] or ""), distribution.version)
    return sorted(
        f"{name}=={version}" for name, version in found.items() if name not in {"", *left_out} and _public(version)
    )


def environment_python(
    wanted: Sequence[str], fixed: Sequence[str], cache: Path, constraints: Path
) -> tuple[Path, str | None]:
    """Make an environment of `wanted` requirements, in the `fixed` versions as far as any fit, or find it in `cache`.

    Returns its Python, and a line about versions that differ from `fixed`, None where none do. `constraints` is the
    file that uv reads. Raises `UvFailed`.
    """
    public = [f"{name}=={_public(version)}" for name, _, version in (line.partition("==") for line in fixed)]
    for allowed, message in (
        (fixed, None),
        # `torch==2.13.0+cpu` comes from an index of its own, of which uv is not told.
        (public, "uv does not find the local versions of this environment (+cpu, +cu130): public ones count"),
        ((), "uv finds nothing that fits the versions of this environment: all that it needs may differ from here"),
    ):
        constraints.write_text("".join(f"{line}\n" for line in allowed), encoding="utf-8")
        command = (
            *(sys.executable, "-m", "uv", "tool", "run", "--quiet", "--color", "never", "--cache-dir", str(cache)),
            *("--no-python-downloads", "--python", sys.executable, "--constraints", str(constraints)),
            *(f"--with={requirement}" for requirement in wanted),
            *("python", "-I", "-c", "import sys; print(sys.executable)"),
        )
        done = subprocess.run(command, text=True, capture_output=True, check=False)
        if done.returncode == 0:
            return Path(done.stdout.strip()), message
        if _UNRESOLVABLE not in done.stderr:
            break
    raise UvFailed(f"uv: {_one_line(done.stderr)}")


def _public(version: str) -> str | None:
    """Drop the local label: `2.13.0` fits `2.13.0+cpu` too, but not the other way round. None: uv reads no such one."""
    try:
        return Version(version).public
    except InvalidVersion:
        return None


def _one_line(output: str) -> str:
    """Join the lines of an error and its causes, without the hints."""
    text = " ".join(output.partition("\nhint:")[0].split())
    return re.sub(r"\.? cause:", ":", text).removeprefix("error: ") or "it says nothing"
