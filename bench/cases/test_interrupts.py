"""Tests of interrupts: by SIGINT and by SIGTERM, before a run, in it, and when it ends."""

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What a process does that is interrupted, and what it says.
PROGRAM = """
import sys
from bench.cases import interrupts
assert "torch" not in sys.modules and "pytest" not in sys.modules
{before}
try:
    print("ready", flush=True)
    sys.stdin.read()
except BaseException as error:
    print(type(error).__name__)
    raise
finally:
    print("cleared up")
"""
IN_PHASE = {
    "before a run": ("", []),
    "in a run": ("interrupts.interrupt_the_run()", ["KeyboardInterrupt", "cleared up"]),
    "after a run": ("interrupts.leave_quietly()", ["SystemExit", "cleared up"]),
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("phase", IN_PHASE)
def test_a_signal_ends_what_is_going_on(phase: str, number: signal.Signals) -> None:
    before, said = IN_PHASE[phase]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM.format(before=before)]
    process = subprocess.Popen(
        command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    output, errors = process.communicate(timeout=10)
    assert output.split("\n")[:-1] == said
    if phase != "in a run":  # There pytest catches it.
        assert (process.returncode, errors) == (2, "")


@pytest.mark.parametrize("program", ["conftest.py", "bench/report/__main__.py"])
def test_what_is_imported_first_hears_signals(program: str) -> None:
    """Of all that a program imports, only Python's own modules and pytest, which is there, come before."""
    imported = [
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.parse((ROOT / program).read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    slow = [name for name in imported if name and name.partition(".")[0] in {"torch", "bench", "model"}]
    assert slow[0] == "bench.cases"
