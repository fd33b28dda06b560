"""`python -m bench.report`, as users type it."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench.report.specimen import Runs

pytest.importorskip("altair", reason="pages want the extra: pip install '.[report]'")

ROOT = Path(__file__).parents[2]


def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        (sys.executable, "-m", "bench.report", *arguments), cwd=ROOT, text=True, capture_output=True, check=False
    )


def test_the_page_of_a_named_run_is_made_again(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.write(1)
    runs.write(2)
    done = command("0001", "--storage", str(tmp_path), "--report", str(tmp_path / "page"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "page" / "index.html")
    assert "<title>Weight loading: run 0001, failed</title>" in (tmp_path / "page" / "index.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("0007",), "there is no run 0007; recorded are: 0001"),
        ((), "there is no run that passed; recorded are: 0001"),
        (("0001", "--report", "file"), "File exists"),
        (("damaged.json",), "cannot be read"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    Runs(tmp_path).write(1)
    for name in ("file", "damaged.json"):
        (tmp_path / name).write_text("{")
    there = [str(tmp_path / one) if (tmp_path / one).exists() else one for one in arguments]
    done = command(*there, "--storage", str(tmp_path))
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
