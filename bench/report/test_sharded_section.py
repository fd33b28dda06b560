"""The tables of `results/sharded.md`."""

import re
from pathlib import Path

import pytest

from bench.history.runs import Run
from bench.record.record import Record
from bench.record.row_key import RowKey
from bench.report.recorded import Recorded
from bench.report.rows import CaseResult
from bench.report.sharded_section import SHARDED
from bench.selftest.recorded_run import S
from bench.selftest.sharded_run import run, skipped, taken

ROOT = Path(__file__).parents[2]


def told(*results: CaseResult, number: str = "0042") -> Recorded:
    machine = {"torch": "2.13.0", "cores": 2}
    return Recorded(
        Run(Path(f"{number}_abc.json"), "passed", machine, "abc", "2026-11-27T12:00", {}), b"", results, (), (), (), ()
    )


def test_plans_are_a_row_a_strategy_and_a_column_a_number_of_ranks() -> None:
    few = [
        taken("load_then_shard", "fsdp", 8, 3.0, planned=True),
        taken("streamed", "fsdp", 8, planned=True, node_private_peak_bytes=0),
        taken("streamed", "tensor", 8, 1.5, planned=True),
        skipped("dcp", "fsdp", 8),
    ]
    many = [taken("streamed", "fsdp", 1024, planned=True), skipped("dcp", "fsdp", 1024)]
    lines = SHARDED.rendered([told(*few, number="0042"), told(*many, number="0043")]).splitlines()
    assert lines[0] == "<!-- sharded 0042_abc 0043_abc -->"
    assert lines[1].startswith(f"**small, planned**: S is {S / 2**20:.0f} MiB. ")
    node, share, least = (f"{count / 2**20:.{digits}f}" for count, digits in ((16 * S, 0), (S / 8, 0), (S / 1024, 2)))
    assert [line for line in lines if line.startswith("|")] == [
        "| strategy | split | GPU: 8 | 1,024 | node: 8 | 1,024 |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        f"| S/N | fsdp | {share} | {least} |  |  |",
        f"| `load_then_shard` | fsdp | {3 * S / 8 / 2**20:.0f} | - | {node} | - |",
        f"| `streamed` | fsdp | {share} | {least} | 0.00 | {node} |",
        f"| S/N | tensor | {share} | - |  |  |",
        f"| `streamed` | tensor | {1.5 * S / 8 / 2**20:.0f} | - | {node} | - |",
    ]
    assert lines.count("- dcp-small: skipped: its reader wants bytes") == 1
    assert lines[-2] == "Runs 0042, 0043 of 2026-11-27: torch 2.13.0, 2 cores."


def test_what_was_measured_is_shown_as_the_run_printed_it() -> None:
    part = SHARDED.rendered([told(*run(2))])
    assert re.search(
        r"^```text\nsmall: model S .*^strategy +split .*^Least memory: .*^```$", part, re.DOTALL | re.MULTILINE
    )
    assert "planned" not in part


def test_a_run_of_single_processes_is_refused() -> None:
    with pytest.raises(ValueError, match="--sharded: run 0007 has no sharded loads"):
        SHARDED.rendered([told(*run(2)), told(CaseResult(RowKey("streamed", "small"), Record()), number="0007")])
