"""What pip is asked for, so that all is equal but what is to be compared."""

import subprocess
import sys
from collections.abc import Collection, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

# Whether the running environment has one: what made it need not have put one there.
HAS_PIP = find_spec("pip") is not None

# What pip says where no versions are to be had that fit together. What else goes wrong, no other versions mend.
_UNRESOLVABLE = ("ResolutionImpossible", "No matching distribution found")


class PipFailed(Exception):
    """One line: what pip said."""


def pins(without: Collection[str]) -> list[str]:
    """Every distribution of the running environment as `name==version`, less those named by requirements."""
    left_out = {canonicalize_name(Requirement(text).name) for text in without if text}
    # The first of a name is the one that is imported.
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        found.setdefault(canonicalize_name(distribution.metadata["Name"] or ""), distribution.version)
    return sorted(f"{name}=={version}" for name, version in found.items() if name not in {"", *left_out})


def install(python: Path, wanted: Sequence[str], fixed: Sequence[str], constraints: Path) -> str | None:
    """Install what is `wanted`, in the versions that are `fixed` as far as there are any that fit.

    Gives a line about what is not as it was to be, None where all is. `constraints` is the file that pip reads.
    Raises `PipFailed`.
    """
    if not wanted:
        return None
    for allowed, told in (
        (fixed, None),
        # `torch==2.13.0+cpu` comes from an index of its own, which pip was once told of on its command line.
        (_public(fixed), "pip does not find the local versions of this environment (+cpu, +cu130): public ones count"),
        ((), "pip finds nothing that fits the versions of this environment: all that it needs may differ from here"),
    ):
        constraints.write_text("".join(f"{line}\n" for line in allowed), encoding="utf-8")
        options = ("install", "--no-input", "--disable-pip-version-check", "--constraint", str(constraints))
        pip = (sys.executable, "-I", "-m", "pip", "--python", str(python))
        command = (*(pip if HAS_PIP else (str(python), "-I", "-m", "pip")), *options, "--", *wanted)
        done = subprocess.run(command, text=True, capture_output=True, check=False)
        if done.returncode == 0:
            return told
        if not any(sign in done.stderr for sign in _UNRESOLVABLE):
            break
    raise PipFailed(f"pip: {_last_error(done.stderr)}")


def _public(fixed: Sequence[str]) -> list[str]:
    """The same without local version labels: `2.13.0` fits `2.13.0+cpu` too, but not the other way round."""
    return [f"{name}=={_public_version(version)}" for name, _, version in (line.partition("==") for line in fixed)]


def _public_version(version: str) -> str:
    try:
        return Version(version).public
    except InvalidVersion:
        return version


def _last_error(output: str) -> str:
    """The last line that says what is wrong, and not where to read about it."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error:") and "ResolutionImpossible" not in line]
    return (errors or lines or ["it says nothing"])[-1].removeprefix("ERROR: ")
