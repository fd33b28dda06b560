"""`.ci/history`, which keeps the nightly job's runs in a branch, against a remote in a folder."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "history"

GIT = shutil.which("git") or "git"


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org", "-c", "init.defaultBranch=main")
    return subprocess.run(
        (GIT, *identity, *arguments), cwd=folder, text=True, capture_output=True, check=True
    ).stdout.strip()


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A remote with one commit on `main`, and no history yet."""
    remote, first = tmp_path / "origin", tmp_path / "first"
    (first / ".ci").mkdir(parents=True)
    shutil.copy(SCRIPT, first / ".ci" / "history")
    git(tmp_path, "init", "--quiet", "--bare", str(remote))
    git(first, "init", "--quiet")
    git(first, "add", "-A")
    git(first, "commit", "--quiet", "-m", "first")
    git(first, "push", "--quiet", str(remote), "HEAD:refs/heads/main")
    return remote


def night(origin: Path, folder: Path) -> Path:
    """A fresh checkout, as a job makes it."""
    git(origin.parent, "clone", "--quiet", "--depth=1", f"file://{origin}", str(folder))
    return folder


def history(checkout: Path, command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run((checkout / ".ci" / "history", command), text=True, capture_output=True, check=False)


def runs(checkout: Path) -> list[str]:
    return sorted(str(file.relative_to(checkout / ".history")) for file in (checkout / ".history").rglob("*.json"))


def test_what_one_night_keeps_the_next_one_finds(origin: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        checkout = night(origin, tmp_path / f"night{number}")
        restored = history(checkout, "restore")
        assert restored.returncode == 0, restored.stderr
        assert runs(checkout) == [f"Linux/000{earlier}_run.json" for earlier in range(1, number)]
        assert not (checkout / ".history" / ".ci").exists()
        folder = checkout / ".history" / "Linux"
        folder.mkdir(exist_ok=True)
        (folder / f"000{number}_run.json").write_text("{}")
        (folder / "torn.json.unfinished").write_text("{")
        keeping = history(checkout, "keep")
        assert keeping.returncode == 0, keeping.stderr
    assert git(origin, "log", "--format=%s", "history").count("The runs of 20") == 2
    assert git(origin, "ls-tree", "-r", "--name-only", "history").split() == [
        "Linux/0001_run.json",
        "Linux/0002_run.json",
    ]


def test_a_night_without_a_run_keeps_nothing_and_is_no_error(origin: Path, tmp_path: Path) -> None:
    checkout = night(origin, tmp_path / "night")
    history(checkout, "restore")
    kept = history(checkout, "keep")
    assert (kept.returncode, kept.stdout) == (0, "no run came to the history\n")


def test_a_remote_that_does_not_answer_is_an_error_and_no_empty_history(origin: Path, tmp_path: Path) -> None:
    checkout = night(origin, tmp_path / "night")
    shutil.rmtree(origin)
    restored = history(checkout, "restore")
    assert restored.returncode == 1
    assert "the history cannot be reached" in restored.stderr


def test_a_night_that_cannot_push_is_an_error_and_the_next_one_begins_again(origin: Path, tmp_path: Path) -> None:
    checkout = night(origin, tmp_path / "night")
    history(checkout, "restore")
    (checkout / ".history" / "0001_run.json").write_text("{}")
    refusal = origin / "hooks" / "pre-receive"
    refusal.write_text("#!/bin/sh\nexit 1\n")
    refusal.chmod(0o755)
    kept = history(checkout, "keep")
    assert kept.returncode == 1
    assert "the run is in .history/ only" in kept.stderr
    refusal.unlink()
    assert [history(checkout, "restore").returncode for _ in range(2)] == [0, 0]


def test_two_runs_at_once_are_both_kept(origin: Path, tmp_path: Path) -> None:
    one, other = (night(origin, tmp_path / name) for name in ("one", "other"))
    seed = night(origin, tmp_path / "seed")
    history(seed, "restore")
    (seed / ".history" / "0001_run.json").write_text("{}")
    history(seed, "keep")
    for checkout in (one, other):
        history(checkout, "restore")
        (checkout / ".history" / f"0002_{checkout.name}.json").write_text("{}")
    for checkout in (one, other):
        kept = history(checkout, "keep")
        assert kept.returncode == 0, kept.stderr
    kept_files = git(origin, "ls-tree", "-r", "--name-only", "history").split()
    assert kept_files == ["0001_run.json", "0002_one.json", "0002_other.json"]
