"""Several commands of this room in forks of one process: what all of them import takes seconds, and is imported once.

`python -m bench.meters.oracle.together FILE` reads a JSON list of `Command`s from the file, and writes there what came
of them, in their order: `{"status": 0, "stdout": "...", "stderr": "..."}`.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from bench.meters.oracle.__main__ import COMMANDS, PACKAGE, main
from bench.meters.oracle.forks import CallFailed, in_forks

AT_ONCE = 2


@dataclass(frozen=True)
class Command:
    """Arguments of `python -m bench.meters.oracle`, the variables to run it with, and Python to run before it."""

    arguments: list[str]
    environ: Mapping[str, str]
    before: str = ""


def run_together(file: Path) -> None:
    """Run the commands of a file, and write there what came of them."""
    commands = [Command(**one) for one in json.loads(file.read_text())]
    for name in COMMANDS:
        import_module(f"{PACKAGE}.{name}")
    ended = in_forks([partial(_run, command) for command in commands], AT_ONCE)
    file.write_text(json.dumps([_failed(one) if isinstance(one, CallFailed) else one for one in ended]))


def _run(command: Command) -> dict[str, Any]:
    os.environ.update(command.environ)
    status: Any
    with TemporaryFile() as out, TemporaryFile() as err:
        os.dup2(out.fileno(), sys.stdout.fileno())
        os.dup2(err.fileno(), sys.stderr.fileno())
        exec(command.before, {})  # noqa: S102 - the tests' own
        try:
            status = main(command.arguments)
        except SystemExit as ended:
            status = ended.code
        sys.stdout.flush()
        sys.stderr.flush()
        out.seek(0)
        err.seek(0)
        return {"status": status, "stdout": out.read().decode(), "stderr": err.read().decode()}


def _failed(failed: CallFailed) -> dict[str, Any]:
    return {"status": 2, "stdout": "", "stderr": str(failed)}


if __name__ == "__main__":
    run_together(Path(sys.argv[1]))
