"""Terminals to run pytest on, and what is to be seen on them."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

from bench.report.status import ERASE_TO_END_OF_LINE, LINE_ABOVE, RESTORE_CURSOR, SAVE_CURSOR

ROOT = Path(__file__).parents[2]


def on_terminal(folder: Path, columns: int = 80, **environment: str) -> str:
    """What a run in `folder` writes to a terminal of its own."""
    here = {name: value for name, value in os.environ.items() if name not in ("CI", "COLUMNS", "PYTEST_ADDOPTS")}
    here |= {"TERM": "xterm", "PYTHONPATH": str(ROOT)} | environment
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no")
    with subprocess.Popen(  # noqa: S603 - pytest, on files of a test
        command, cwd=folder, env=here, stdin=terminal, stdout=terminal, stderr=terminal
    ):
        os.close(terminal)
        written = b"".join(iter(lambda: _read(master), b""))
    os.close(master)
    return written.decode()


def _read(master: int) -> bytes:
    try:
        return os.read(master, 2**16)
    except OSError:  # what Linux says where other systems say nothing: the last writer is gone
        return b""


def screen(written: str) -> list[str]:
    """What is to be seen in the end, as lines; those that are empty are left out."""
    lines: list[str] = []
    row, column, saved = 0, 0, 0
    for piece in re.findall(r"\x1b\[\d*[A-Z]|\x1b[78]|[^\x1b]", written):
        lines += [""] * (row + 1 - len(lines))
        if piece == SAVE_CURSOR:
            saved = column
        elif piece in (RESTORE_CURSOR, "\r"):
            column = saved if piece == RESTORE_CURSOR else 0
        elif piece == ERASE_TO_END_OF_LINE:
            lines[row] = lines[row][:column]
        elif piece in ("\n", LINE_ABOVE):
            row += 1 if piece == "\n" else -1
        elif piece.startswith("\x1b"):
            column = int(piece[2:-1]) - 1
        else:
            lines[row] = lines[row][:column].ljust(column) + piece + lines[row][column + 1 :]
            column += 1
    return [re.sub(r"\d+\.\d\ds", "TIME", line.rstrip()) for line in lines if line.strip()]
