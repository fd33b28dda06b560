"""Every recorded run renders as before. Accept a change with `python -m bench.report.test_rendered`."""

import json
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path

import pytest

from bench.history.runs import read_run
from bench.report.conformance import conformance_lines
from bench.report.history_section import history_lines
from bench.report.recorded import recorded
from bench.report.run_verdict import verdict
from bench.report.table import markdown, terminal_lines

RESULTS = Path(__file__).parents[2] / "results"
DIGESTS = Path(__file__).with_name("rendered.json")
COMMAND = f"python -m bench.report.{Path(__file__).stem}"

# Columns of terminals: those of few, of many, and of a page that wraps by itself.
WIDTHS = (60, 80, 100, 120, 1000)


@cache
def digests() -> dict[str, dict[str, str]]:
    """Read the SHA-256 digests of each run's renderings, by the name of its file, and of `--history` of them all."""
    return json.loads(DIGESTS.read_text(encoding="utf-8"))


def _digest(lines: Sequence[str]) -> str:
    return sha256("\n".join(lines).encode()).hexdigest()


def run_digests(file: Path) -> dict[str, str]:
    run = recorded(file)
    return {
        **{f"terminal {width}": _digest(terminal_lines(run.rows, width)) for width in WIDTHS},
        "markdown": _digest([markdown(run.rows)]),
        "verdict": _digest([*map(str, verdict(run))]),
        "conformance": _digest(conformance_lines(run.cells, WIDTHS[-1], whole=True) if run.cells else []),
    }


def history_digests(files: Sequence[Path]) -> dict[str, str]:
    runs = sorted(map(read_run, files), key=lambda run: run.moment)
    return {f"terminal {width}": _digest(history_lines(runs, (), width)) for width in WIDTHS}


def _files() -> list[Path]:
    """The files of the committed runs; others that lie beside them are of whoever works here."""
    return [file for file in sorted(RESULTS.glob("*/*.json")) if file.name in digests()]


@pytest.mark.parametrize("file", _files(), ids=lambda file: file.name[:4])
def test_a_recorded_run_renders_as_before(file: Path) -> None:
    assert run_digests(file) == digests()[file.name], f"if this is on purpose: {COMMAND}"


def test_the_history_of_recorded_runs_renders_as_before() -> None:
    assert {file.name for file in _files()} == digests().keys() - {"history"}
    assert history_digests(_files()) == digests()["history"], f"if this is on purpose: {COMMAND}"


if __name__ == "__main__":
    files = sorted(RESULTS.glob("*/0*.json"))
    found = {file.name: run_digests(file) for file in files} | {"history": history_digests(files)}
    DIGESTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
