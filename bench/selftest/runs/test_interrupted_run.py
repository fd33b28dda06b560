"""A run that is interrupted shows what it has."""

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_an_interrupted_plan_shows_what_it_has(tmp_path: Path) -> None:
    """On a terminal: the status line, marks of the budget, the advice, and what is missing."""
    command = [sys.executable, "-m", "pytest", "bench", "--plan", "--sizes", "tiny", "--device-memory", "50MiB"]
    where = ["--checkpoint-dir", str(tmp_path / "cache"), "--benchmark-storage", str(tmp_path / "results")]
    controller, terminal = pty.openpty()
    environment = os.environ | {"COLUMNS": "100", "PYTEST_ADDOPTS": "", "GITHUB_ACTIONS": "false"}
    process = subprocess.Popen(
        [*command, *where, "-p", "no:cacheprovider"], cwd=ROOT, env=environment, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    output = b""
    while data := _read(controller):
        output += data
        if b"streamed: peak memory" in output and process.poll() is None:
            process.send_signal(signal.SIGINT)
            break
    while data := _read(controller):
        output += data
    assert process.wait(60) == 2
    text = re.sub(r"\x1b\[[0-9;]*m|\r", "", output.decode())
    assert re.search(r"^baseline .* ! 66\.3 .* too big$", text, re.MULTILINE)
    assert re.search(r"^mmap_assign .* 33\.2 .* fits$", text, re.MULTILINE)
    assert "Use mmap_assign for tiny on one device. It " in text
    assert re.search(r"Interrupted: \d of 14 measurements are done; missing: peak memory of ", text)
    assert len(list((tmp_path / "results").rglob("interrupted-*.json"))) == 1


def _read(controller: int) -> bytes:
    """Read what a process wrote to its terminal; empty if it has ended."""
    try:
        return os.read(controller, 65536)
    except OSError:
        return b""
