from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.conformance.judge import CellStatus
from bench.conformance.sweep import Cell
from bench.history.runs import Key, Run
from bench.record.record import Record
from bench.record.row_key import RowKey
from bench.report.peers import PEERS, Loader, beaten, peer_lines, version_lines
from bench.report.recorded import Recorded
from bench.report.rows import CaseResult, Problem, Row, Status
from bench.report.table import terminal_lines

ROOT = Path(__file__).parents[2]

S, L = 1_000_000, 200_000
PEER = {
    "versions": {"quick": "1.2", "safetensors": "0.8"},
    "settings": "load(fast=True)",
    "backend": "io_uring",
    "destination": "meta skeleton",
    "formats": "safetensors",
    "devices": "cpu cuda",
}


def record(device: str = "cpu", cache: str = "warm", **figures: Any) -> Record:
    scale = {"state_bytes": S, "largest_tensor_bytes": L}
    known = {"size": "small", "device": device, "cache": cache, "ownership": "owned", **scale, **figures}
    return Record.read(known)


def run(results: list[CaseResult], cells: list[Cell] | None = None) -> Recorded:
    told = Run(Path("0042_abc.json"), "passed", {"torch": "2.13.0", "cores": 2}, "abc", "2026-11-26T12:00", {})
    return Recorded(told, b"", tuple(results), tuple(cells or ()), (), (), ())


def results() -> list[CaseResult]:
    """Results of a recipe, of a loader of another project that is better in one figure, and of one that was skipped."""
    ours: dict[str, Any] = {"strategy": "streamed", "peer": None}
    theirs: dict[str, Any] = {"strategy": "quick", "peer": PEER}
    return [
        CaseResult(RowKey("streamed", "small"), record("sim", device_peak_ratio=1.0, host_peak_ratio=0.1, **ours)),
        CaseResult(RowKey("streamed", "small"), record(host_peak_ratio=1.0, host_file_peak_bytes=0, **ours)),
        CaseResult(RowKey("streamed", "small"), record(load_seconds=0.2, first_logits_seconds=0.3, **ours)),
        CaseResult(
            RowKey("streamed", "small"), record(cache="cold", load_seconds=2.0, first_logits_seconds=2.1, **ours)
        ),
        CaseResult(RowKey("memory", "small", roofline=True), record(limit="memory")),
        CaseResult(RowKey("quick", "small"), record(host_peak_ratio=1.5, retained_bytes=2_000_000, **theirs)),
        CaseResult(
            RowKey("quick", "small"), record(load_seconds=0.1, first_logits_seconds=0.15, limit_fraction=0.9, **theirs)
        ),
        CaseResult(
            RowKey("absent", "small"),
            problem=Problem(Status.SKIPPED, "absent is not installed: pip install '.[peers]'"),
        ),
    ]


def test_what_a_loader_was_and_was_told_stands_below_the_table() -> None:
    row = Row(RowKey("quick", "small"), record(peer=PEER, host_peak_ratio=1.5))
    line = "quick: quick 1.2, safetensors 0.8; load(fast=True) (io_uring); into: meta skeleton"
    assert peer_lines([row, row, Row(RowKey("streamed", "small"), record(peer=None))]) == [line]
    assert line in terminal_lines([row], 80)


def test_a_gpu_comes_before_its_stand_in_and_both_before_a_simulated_one() -> None:
    simulated, stand_in, gpu = (
        CaseResult(RowKey("streamed", "small"), record(device, stand_in=memory, device_peak_ratio=ratio))
        for device, memory, ratio in (("sim", None, 1.0), ("cuda", "80 GiB", 2.0), ("cuda", None, 3.0))
    )
    for found, shown in (([simulated], 1), ([simulated, stand_in], 2), ([simulated, stand_in, gpu], 3)):
        assert f"| `streamed` | {shown}.00x |" in PEERS.rendered([run(found)])


def test_every_machine_of_a_part_is_named() -> None:
    first = run(results())
    gpus = {"torch": "2.14.1", "gpus": ["stand-in for a GPU"], "stand_in": "80 GiB"}
    other = replace(first, run=replace(first.run, machine=gpus))
    said = "Runs 0042, 0042, 0042 of 2026-11-26: torch 2.13.0, 2 cores; torch 2.14.1, stand-in for a GPU (80 GiB)."
    assert said in PEERS.rendered([first, other, first])


def test_the_part_has_every_loader_and_says_where_the_suite_is_beaten() -> None:
    cells = [
        Cell("quick", "plain", CellStatus.PASSED, 5),
        Cell("quick", "ties", CellStatus.REFUSED, 5),
        Cell("quick", "frozen", CellStatus.WRONG, 5),
        Cell("quick", "training", CellStatus.DIED, 0),
        Cell("quick", "surplus", CellStatus.WRONG, 5),
        Cell("quick", "missing", CellStatus.REFUSED, 5),
    ]
    told = PEERS.rendered([run(results(), cells)])
    assert "| `streamed` | 1.00x | 0.10x | 1.00x | 0.00x | 0.20 | 0.30 | - | 2.00 | 2.10 | - | - |" in told
    assert "| `quick` | - | - | 1.50x | - | 0.10 | 0.15 | 0.90 | - | - | - | 2, 0 |" in told
    assert "- `absent`: skipped: absent is not installed: pip install '.[peers]'" in told
    assert "limit: memory" not in told
    assert "- First logits, owned weights: `quick` (0.15 s) beats `streamed` (0.30 s), the best strategy here." in told
    assert "CPU, owned weights: no other project beats `streamed` (1.00x); the closest is `quick` (1.50x)." in told
    versions, settings = "quick 1.2, safetensors 0.8", "load(fast=True) (io_uring)"
    assert f"| `quick` | {versions} | {settings} | meta skeleton | safetensors | CPU, CUDA |" in told
    # Misfits are counted apart: to refuse them is right.
    assert "| `quick` | 1 of 4 | ties | frozen | training | surplus |" in told
    assert told.startswith("<!-- peers 0042_abc -->")
    assert "Run 0042 of 2026-11-26: torch 2.13.0, 2 cores." in told


def loader(name: str, peer: Any = None, **figures: Any) -> Loader:
    return Loader(name, (record(peer=peer, **figures),), ())


def test_a_time_that_is_as_good_is_not_beaten() -> None:
    [line] = beaten([loader("ours", first_logits_seconds=1.0), loader("theirs", PEER, first_logits_seconds=0.92)])
    assert line.endswith(", owned weights: `ours` (1.00 s) and `theirs` (0.92 s) differ by less than 10 %.")
    assert list(beaten([loader("ours", first_logits_seconds=1.0)])) == []


def test_bytes_are_better_by_any_that_are_shown() -> None:
    ours = loader("ours", host_peak_ratio=1.02)
    [line] = beaten([ours, loader("theirs", PEER, host_peak_ratio=1.01)])
    assert line.endswith(": `theirs` (1.01x) beats `ours` (1.02x), the best strategy here.")
    [line] = beaten([ours, loader("theirs", PEER, host_peak_ratio=1.0199)])
    assert line.endswith(": `ours` (1.02x) and `theirs` are equal.")


def test_mapped_weights_do_not_rival_owned_ones() -> None:
    mapped: dict[str, Any] = {"ownership": "mapped", "first_logits_seconds": 0.1, "host_peak_ratio": 0.0}
    ours = [loader("ours", first_logits_seconds=1.0, host_peak_ratio=1.0), loader("our map", **mapped)]
    [line] = beaten([*ours, loader("theirs", PEER, **mapped)])
    assert line.endswith(", mapped weights: `our map` (0.10 s) and `theirs` are equal.")


def test_another_version_than_the_last_time_is_told() -> None:
    def before(number: str, version: str) -> Run:
        key = Key("test_peak_memory[quick-small-cpu]", "float32", "warm", planned=False)
        peer = PEER | {"versions": {"quick": version, "safetensors": "0.8"}}
        return Run(Path(f"{number}_a.json"), "passed", {}, "a", "", {key: record(strategy="quick", peer=peer)})

    rows = [Row(RowKey("quick", "small"), record(peer=PEER))] * 2
    runs = [before("0001", "1.2"), before("0002", "1.1"), Run(Path("0003_a.json"), "passed", {}, "a", "", {})]
    assert version_lines(rows, runs) == ["quick: quick 1.1 -> 1.2 since run 0002"]
    assert version_lines(rows, runs[:1]) == []
    assert version_lines(rows, []) == []
