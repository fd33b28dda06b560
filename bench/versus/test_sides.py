from pathlib import Path

import pytest
from packaging.requirements import Requirement

from bench.versus.conftest import Commit
from bench.versus.sides import HERE, Side, parse

here = Side(HERE)


def test_a_commit_by_itself_is_held_against_what_is_here(repository: Path, commit: Commit) -> None:
    first = commit({"file": "1"})
    second = commit({"file": "2"})
    for name, full in (("main", second), ("HEAD~1", first), (first[:10], first), ("@", second), ("main@{0}", second)):
        assert parse(name, repository) == (Side(name, commit=full), here)
    assert parse("HEAD~1..main", repository) == (Side("HEAD~1", commit=first), Side("main", commit=second))


def test_a_side_left_out_is_what_is_here(repository: Path, commit: Commit) -> None:
    full = commit({"file": "1"})
    assert parse("main..", repository) == parse("main..here", repository) == (Side("main", commit=full), here)
    assert parse("..main", repository) == parse("here .. main", repository) == (here, Side("main", commit=full))


@pytest.mark.parametrize(
    ("text", "requirement"),
    [
        ("torch==2.12.*", "torch==2.12.*"),
        ("psutil<7", "psutil<7"),
        ("psutil >= 6, < 7", "psutil<7,>=6"),
        ("Pytest_Benchmark~=5.2", "pytest-benchmark~=5.2"),
        ("safetensors @ git+https://example.org/x@v1", str(Requirement("safetensors @ git+https://example.org/x@v1"))),
    ],
)
def test_a_requirement_needs_no_repository(tmp_path: Path, text: str, requirement: str) -> None:
    assert parse(text, tmp_path) == (Side(text, requirement=requirement), here)
    assert parse(f"{text}..psutil==5", tmp_path)[0] == Side(text, requirement=requirement)


def test_what_git_knows_is_a_commit(repository: Path, commit: Commit) -> None:
    full = commit({"file": "1"})
    (repository / ".git/refs/heads/psutil<7").write_text(full)
    assert parse("psutil<7", repository)[0].commit == full


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "both sides are this checkout; name two that differ: a commit"),
        ("here..here", "both sides are this checkout"),
        ("main..HEAD", "both sides are "),
        ("psutil>=6,<7..Psutil<7, >=6", "both sides are psutil<7,>=6; name two that differ"),
        ("main...HEAD", "'..' divides two sides, and stands once; write A or A..B"),
        ("main..HEAD..main", "'..' divides two sides, and stands once"),
        ("torch", "'torch' is neither a commit of this repository nor a requirement with a version; name"),
        ("HEAD~99", "'HEAD~99' is neither a commit of this repository nor"),
        ("main@{99}", "'main@{99}' is neither a commit of"),
        ("--all", "'--all' is neither a commit of"),
        ("main..nowhere", "'nowhere' is neither a commit of"),
        ("torch==", "'torch==' is not a pip requirement (Expected "),
        ("psutil<7,torch==2", "'psutil<7,torch==2' is not a pip requirement (Expected comma "),
        ("torch==2; python_version<'3'", "is installed under a condition only; leave out what follows the semicolon"),
    ],
)
def test_what_is_neither_is_refused_in_a_line(repository: Path, commit: Commit, text: str, wrong: str) -> None:
    commit({"file": "1"})
    with pytest.raises(ValueError, match=r"\A--versus[^\n]*\Z") as raised:
        parse(text, repository)
    assert wrong in str(raised.value)
