"""The two sides of a comparison, as `--versus` names them: commits, pip requirements, or what is here."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

HERE = "here"

# Only a requirement has one of these; `~` and `@` by themselves a commit may have too: HEAD~3, main@{1}.
_OF_REQUIREMENTS = ("==", "!=", "~=", "<", ">", "://")

_RIGHT = "a commit (main, HEAD~3) or a pip requirement (torch==2.12.*)"


@dataclass(frozen=True)
class Side:
    """One side, by the name that the user gave it.

    It has a pip requirement, which comes on top of this checkout's dependencies, or the full hash of a commit, or
    neither: then it is this checkout, uncommitted changes included, in the running environment.
    """

    name: str
    requirement: str | None = None
    commit: str | None = None


def parse(text: str, root: Path) -> tuple[Side, Side]:
    """Return the reference and the candidate of `A` or `A..B`; a side left out is this checkout.

    A text that git knows as a commit in `root` is a commit. Raises `ValueError` with one line: the fault and the
    remedy.
    """
    first, _, second = text.partition("..")
    if second.startswith(".") or ".." in second:
        raise ValueError(f"--versus {text}: '..' divides two sides, and stands once; write A or A..B")
    reference, candidate = _side(first.strip(), root), _side(second.strip(), root)
    if (reference.requirement, reference.commit) == (candidate.requirement, candidate.commit):
        what = reference.commit[:12] if reference.commit else reference.requirement or "this checkout"
        raise ValueError(f"--versus {text}: both sides are {what}; name two that differ: {_RIGHT}")
    return reference, candidate


def _side(text: str, root: Path) -> Side:
    if text in ("", HERE):
        return Side(HERE)
    if commit := _commit(text, root):
        return Side(text, commit=commit)
    return Side(text, requirement=_requirement(text))


def _commit(text: str, root: Path) -> str | None:
    """Return the full hash; None where there is no such commit, no repository, or no git."""
    command = ("git", "rev-parse", "--verify", "--quiet", f"{text}^{{commit}}")
    try:
        done = subprocess.run(command, cwd=root, text=True, capture_output=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _requirement(text: str) -> str:
    """Return a requirement in one spelling for all that are equal."""
    neither = (
        f"--versus: {text!r} is neither a commit of this repository nor a requirement with a version; name {_RIGHT}"
    )
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        if not any(sign in text for sign in _OF_REQUIREMENTS):
            raise ValueError(neither) from None
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"--versus: {text!r} is not a pip requirement ({reason}); write one such as torch==2.12.*"
        ) from None
    # A bare name would be any version, and so the one that is here.
    if not requirement.specifier and "://" not in (requirement.url or ""):
        raise ValueError(neither)
    if requirement.marker:
        raise ValueError(
            f"--versus: {text!r} is installed under a condition only; leave out what follows the semicolon"
        )
    requirement.name = canonicalize_name(requirement.name)
    return str(requirement)
