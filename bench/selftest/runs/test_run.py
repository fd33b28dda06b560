"""Runs of the suite itself, as users start them."""

import getpass
import json
import platform
import re
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import pytest

from bench.conformance.properties import PROPERTIES, columns
from bench.conftest import ROOT, Bench, last_record, recorded
from bench.record.record import FIELDS
from bench.selftest.documents.markdown import documented_options
from bench.strategies import STRATEGIES

# A plugin that draws one model a property.
FEW_MODELS = """
from bench.conformance import sweep

sweep.LEAST = 1
"""

# A plugin that fills the disk.
FULL_DISK = """
from model.checkpoints.cache import CheckpointCache

CheckpointCache._free_bytes = lambda self: 1_000_000
CheckpointCache._removable_bytes = lambda self: 0
"""

# A plugin that fills the disk when the run is recorded.
FULL_RESULTS = """
from pathlib import Path
from bench.history import run_files

write_whole = run_files.write_whole

def full(file, content):
    if Path(file).name[:1].isdigit():
        raise OSError(28, "No space left on device")
    write_whole(file, content)

run_files.write_whole = full
"""

if not Path("/proc/self/clear_refs").exists():
    pytest.skip("needs Linux's /proc", allow_module_level=True)


@pytest.fixture(scope="module")
def whole_run(bench: Bench) -> "subprocess.CompletedProcess[str]":
    # Crowds take as long as all other models together.
    return bench(*documented_options("pytest bench --conformance"), "-k", "not crowds", plugin=FEW_MODELS, page=True)


def test_the_main_job_passes_and_prints_a_table(whole_run: "subprocess.CompletedProcess[str]") -> None:
    assert whole_run.returncode == 0, whole_run.stdout
    lines = whole_run.stdout.splitlines()
    split = partial(re.split, r" {2,}")
    [heading] = [split(line) for line in lines if line.startswith("strategy ")]
    cells = {}
    for strategy in STRATEGIES:
        [row] = [line for line in lines if line.startswith(f"{strategy} ")]
        assert row.endswith("  ok")
        cells[strategy] = dict(zip(heading, split(row), strict=True))
    frugal = [strategy for strategy, row in cells.items() if row["GPU MiB"] == "33.2"]
    assert frugal == ["load_assign", "mmap_assign", "per_tensor", "streamed"]
    assert re.search(r"max: this machine's memory \d", whole_run.stdout)
    [best] = [line for line in lines if line.startswith("Least memory: ")]
    assert best.startswith("Least memory: mmap_assign (GPU 33.2 MiB, ")
    # Which of them is the fastest of a tiny model is for the machine to say, on a busy one each time another.
    [quickest] = [line for line in lines if line.startswith("Fastest on this CPU: ")]
    least = min(float(row["output s"]) for row in cells.values())
    named = re.findall(r"\w+", quickest)
    assert [name for name in named if name in cells and float(cells[name]["output s"]) == least]
    own_table = lines[lines.index(next(line for line in lines if "weight loading:" in line)) :]
    assert max(len(line) for line in own_table if line not in (best, quickest)) <= 120


@pytest.mark.usefixtures("whole_run")
def test_every_benchmark_is_recorded_with_every_field(folder: Path) -> None:
    benchmarks = {benchmark["fullname"]: benchmark for benchmark in last_record(folder)["benchmarks"]}
    assert benchmarks.keys() == {
        *(f"bench/test_peak_memory.py::test_peak_memory[{strategy}-tiny-sim]" for strategy in STRATEGIES),
        *(f"bench/test_load_time.py::test_load_time[{strategy}-tiny-cpu]" for strategy in STRATEGIES),
        *(f"bench/test_limit.py::test_limit[{kind}-tiny-cpu]" for kind in ("memory", "mapping")),
    }
    for fullname, benchmark in benchmarks.items():
        record = benchmark["extra_info"]
        assert list(record) == list(FIELDS)
        assert (record["limit_bytes_per_second"] is None) == ("peak_memory" in fullname)
        assert (record["limit_fraction"] is not None) == ("load_time" in fullname)
        if "test_limit" in fullname:
            assert (record["strategy"], record["bytes_per_second"]) == (None, record["limit_bytes_per_second"])
            continue
        assert benchmark["params"] == {name: record[name] for name in ("strategy", "size", "device")}
        assert record["state_bytes"] == 34_782_720
        memory, seconds = record["host_private_peak_bytes"], record["load_seconds"]
        assert isinstance(memory if "peak_memory" in fullname else seconds, int if "peak_memory" in fullname else float)
        assert (seconds if "peak_memory" in fullname else memory) is None
        device_peak = record["device_reserved_peak_bytes"]
        assert isinstance(device_peak, int) if "peak_memory" in fullname else device_peak is None
        assert not record["planned"]
        for told in ("alive_at_peak", "timeline"):
            assert (record[told] is not None) == ("peak_memory" in fullname), told


def test_the_conformance_table_is_printed_and_recorded(
    whole_run: "subprocess.CompletedProcess[str]", folder: Path
) -> None:
    cells = last_record(folder)["conformance"]
    assert {(cell["strategy"], cell["property"]) for cell in cells} == {
        (name, column) for name, strategy in STRATEGIES.items() for column in columns(strategy) if column != "crowds"
    }
    for cell in cells:
        strategy, row = STRATEGIES[cell["strategy"]], PROPERTIES[cell["property"]]
        refused = row.name in strategy.refused("cpu") or not row.fits
        assert cell["outcome"] == ("refused" if refused else "passed")
        assert bool(cell["example"]) == refused
    lines = whole_run.stdout.splitlines()
    assert len([line for line in lines if line.startswith("| meta_sequential ")]) > 1
    assert "per_tensor, views: refused: ValueError: " in (whole_run.stdout)
    assert "| mmap_assign     | ok    |" in (folder / "summary.md").read_text()


@pytest.mark.usefixtures("whole_run")
def test_a_record_says_what_the_machine_is_but_not_whose(folder: Path) -> None:
    record = last_record(folder)
    assert record["machine_info"]["torch"]
    assert record["machine_info"]["memory_bytes"] > 0
    assert record["machine_info"]["cpu"]["brand_raw"]
    text = json.dumps(record)
    for private in (platform.node(), str(Path.home()), str(ROOT), str(folder), tempfile.gettempdir()):
        assert private not in text
    assert f'"{getpass.getuser()}"' not in text


@pytest.mark.usefixtures("whole_run")
def test_the_job_page_gets_the_table(folder: Path) -> None:
    summary = (folder / "summary.md").read_text()
    assert "| strategy | size |" in summary
    assert summary.count("| ok |") >= len(STRATEGIES)


def test_the_run_has_a_page_beside_the_runs(whole_run: "subprocess.CompletedProcess[str]", folder: Path) -> None:
    pytest.importorskip("altair", reason="pages want the extra: pip install '.[report]'")
    [said] = [line for line in whole_run.stdout.splitlines() if line.startswith("Page: ")]
    assert said.endswith("results/report/index.html")
    page = (folder / "results" / "report" / "index.html").read_text()
    for strategy in STRATEGIES:
        assert f"{strategy}-tiny" in page
    assert "Memory over time" in page
    for private in (str(Path.home()), str(ROOT), str(folder)):
        assert private not in page


def change(file: Path, strategy: str, name: str, factor: float) -> None:
    """Have a recorded run say less or more of a figure of one strategy."""
    run = json.loads(file.read_text())
    for benchmark in run["benchmarks"]:
        record = benchmark["extra_info"]
        if record["strategy"] == strategy and record[name] is not None:
            record[name] = int(record[name] * factor)
    file.write_text(json.dumps(run))


@pytest.mark.usefixtures("whole_run")
def test_a_later_run_is_compared_mends_what_was_damaged_and_fails_for_what_grew(bench: Bench, folder: Path) -> None:
    [baseline] = recorded(folder)
    change(baseline, "per_tensor", "device_requested_peak_bytes", 1 / 1.009)
    change(baseline, "streamed", "device_requested_peak_bytes", 1 / 1.011)
    damaged = folder / "checkpoints" / "gpt2-tiny-float32-per_tensor" / "tensors" / "out_head.weight.pt"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    which = ("--strategies", "per_tensor,streamed", "-k", "load_time or peak_memory")
    run = bench(*documented_options("pytest bench --benchmark-compare"), *which, env={"COLUMNS": "80"})
    assert run.returncode == 1, run.stdout
    assert "gpt2-tiny-float32-per_tensor: out_head.weight.pt has " in run.stdout
    assert "it is made again" in run.stdout
    lines = run.stdout.splitlines()
    # pytest-benchmark's own table has both, and fits the terminal.
    start = next(number for number, line in enumerate(lines) if "benchmark 'test_load_time'" in line)
    names = {line.partition(")")[0] for line in lines[start + 3 : start + 7]}
    assert names == {f"{name}-tiny ({when}" for name in ("per_tensor", "streamed") for when in ("0001", "NOW")}
    assert max(map(len, lines[start : start + 8])) <= 80
    assert "Legend" not in run.stdout
    # What grew by 1.1 % fails, and says what was alive; what grew by 0.9 % does not.
    [row] = [line for line in lines if line.startswith("GREW  ")]
    assert re.search(r" streamed-tiny-sim .* device requested peak .* \+1\.1 %", row)
    assert lines[lines.index(row) + 1].startswith("    33.17 MiB in 39 tensors: streamed.py:")
    assert "device requested peak grew from 32." in run.stdout
    assert "Traceback" not in run.stdout + run.stderr
    last = last_record(folder)
    assert last["history"]["outcome"] == "failed"
    assert len(last["benchmarks"]) == 4
    # Nothing else wants what the page does.
    assert re.search(
        r"^For a page of this run, in \S+results/report/: pip install '\.\[report\]'$", run.stdout, re.MULTILINE
    )


def test_a_plan_needs_no_checkpoint_and_explains_itself(bench: Bench, folder: Path) -> None:
    command = "pytest bench --plan --explain --sizes xl --strategies sequential,mmap_assign"
    run = bench(*documented_options(command))
    assert run.returncode == 0, run.stdout
    assert "weight loading: float32 to sim, planned" in run.stdout
    assert re.search(r" 2 passed, \d+ deselected in ", run.stdout)
    lines = run.stdout.splitlines()
    start = lines.index("sequential-xl: device requested peak 6.59 GiB")
    assert lines[start + 1 : start + 3] == [
        "    6.29 GiB in 821 tensors: sequential.py:8 model = build_on(build, device, dtype)",
        "    0.30 GiB in 1 tensor: sequential.py:15 destination.copy_(state_dict[name].to(device))",
    ]
    assert "mmap_assign-xl: host file peak 6.29 GiB" in lines
    assert not [path for path in (folder / "checkpoints").iterdir() if "xl" in path.name]
    benchmarks = last_record(folder)["benchmarks"]
    assert [benchmark["name"] for benchmark in benchmarks] == [
        "test_peak_memory[sequential-xl-sim]",
        "test_peak_memory[mmap_assign-xl-sim]",
    ]
    record = benchmarks[0]["extra_info"]
    assert record["planned"]
    assert record["minor_faults"] is None
    [model, tensor] = record["alive_at_peak"]["device_requested_peak_bytes"]
    assert model["bytes"] + tensor["bytes"] == record["device_requested_peak_bytes"] == 7_075_060_992
    assert str(ROOT) not in json.dumps(record)


def test_an_unusable_option_is_one_line_and_writes_nothing(bench: Bench, folder: Path) -> None:
    """A disk that is too small is the last error that is found before a run."""
    before = sorted(path for path in folder.rglob("*") if "plugins" not in path.parts and path.suffix != ".lock")
    run = bench("--dtype", "float16", plugin=FULL_DISK)
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    [error] = [line for line in run.stderr.splitlines() if line]
    assert error.startswith("ERROR: gpt2-tiny-float16-per_tensor needs 44.0 MB of disk, 1.0 MB are free")
    assert "Traceback" not in run.stdout
    after = sorted(path for path in folder.rglob("*") if "plugins" not in path.parts and path.suffix != ".lock")
    assert after == before


def test_a_cold_run_in_any_locale_that_cannot_be_recorded_shows_what_it_measured_and_fails(
    bench: Bench, folder: Path
) -> None:
    before = sorted((folder / "results").rglob("*"))
    asked = folder / "asked.json"
    run = bench(
        *documented_options("pytest bench --device cpu --cache cold"),
        *("-k", "(load_time or peak_memory) and mmap_assign", "--benchmark-json", str(asked)),
        plugin=FULL_RESULTS,
        env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    )
    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    assert "page cache cold" in run.stdout
    lines = run.stdout.splitlines()
    [row] = [line for line in lines if line.startswith("mmap_assign ")]
    assert row.endswith("  ok")
    [error] = [line for line in lines if line.startswith("ERROR: ")]
    assert error.startswith("ERROR: this run is not recorded: 0")
    assert error.endswith(".json cannot be written: No space left on device")
    assert [line for line in lines if line.startswith("No page: ") and "--benchmark-storage" in line]
    assert "Traceback" not in run.stdout + run.stderr
    assert sorted((folder / "results").rglob("*")) == before
    measured = {one["name"].partition("[")[0]: one["extra_info"] for one in json.loads(asked.read_text())["benchmarks"]}
    assert measured.keys() == {"test_load_time", "test_peak_memory"}
    for record in measured.values():
        assert (record["cache"], record["limit"]) == ("cold", "disk")
        assert record["major_faults"] > 0
