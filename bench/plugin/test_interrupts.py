"""Tests of interrupts: by SIGINT and by SIGTERM, before a run, in it, and when it ends."""

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench import interrupts

ROOT = Path(__file__).parents[2]

# What a process does that is interrupted, and what it says.
PROGRAM = """
import sys
from bench import interrupts
assert "torch" not in sys.modules and "pytest" not in sys.modules
{before}
try:
    print("ready", flush=True)
    sys.stdin.read()
except BaseException as error:
    print(type(error).__name__, flush=True)
    {after}
    raise
finally:
    print("cleared up")
"""
IN_PHASE = {
    "before a run": ("", []),
    "in a run": ("interrupts.interrupt_the_run()", ["KeyboardInterrupt", "cleared up"]),
    "after a run": ("interrupts.leave_quietly()", ["SystemExit", "cleared up"]),
}


def started(program: str) -> subprocess.Popen[str]:
    """A process that has said that it is ready."""
    command, pipe = [sys.executable, "-c", program], subprocess.PIPE
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environ, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("phase", IN_PHASE)
def test_a_signal_ends_what_is_going_on(phase: str, number: signal.Signals) -> None:
    before, said = IN_PHASE[phase]
    process = started(PROGRAM.format(before=before, after=""))
    process.send_signal(number)
    output, errors = process.communicate(timeout=10)
    assert output.split("\n")[:-1] == said
    if phase != "in a run":  # There pytest catches it.
        assert (process.returncode, errors) == (2, "")


@pytest.mark.parametrize("after", ["", "interrupts.leave_quietly()"])
@pytest.mark.parametrize("phase", ["in a run", "after a run"])
def test_a_second_signal_ends_the_process_at_once(phase: str, after: str) -> None:
    before, said = IN_PHASE[phase]
    process = started(PROGRAM.format(before=before, after=f"{after or None}; sys.stdin.read()"))
    process.send_signal(signal.SIGINT)
    assert process.stdout
    assert process.stdout.readline() == f"{said[0]}\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=10) == ("", "")
    assert process.returncode == interrupts.EXIT_STATUS


@pytest.mark.parametrize("program", ["conftest.py", "bench/report/__main__.py"])
def test_what_is_imported_first_hears_signals(program: str) -> None:
    """Only Python's own modules and pytest come before it among the imports of a program."""
    imported = [
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.parse((ROOT / program).read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    slow = [name for name in imported if name and name.partition(".")[0] in {"torch", "bench", "model"}]
    assert slow[0] == "bench"
