"""Runs of the suite itself, as users start them."""

import getpass
import json
import platform
import re
import subprocess
import tempfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.cases.conftest import ROOT, Bench, last_record
from bench.cases.options import OPTIONS
from bench.conformance.properties import PROPERTIES, columns
from bench.history.options import OPTIONS as HISTORY_OPTIONS
from bench.history.record import FIELDS
from bench.strategies import STRATEGIES
from bench.versus.session import OPTIONS as VERSUS_OPTIONS

# A plugin that adds strategies with faults to the table.
FAULTY = """
from bench.meters.test_faults import load_and_be_killed, load_and_look, load_with_stray_copy, load_wrong
from bench.strategies import STRATEGIES, Strategy

for strategy in (
    Strategy(load_with_stray_copy, "torch", "S", "0", "0", "S"),
    Strategy(load_wrong, "per_tensor", "S", "L", "S + L", "0"),
    Strategy(load_and_look, "torch", "S", "0", "0", "S"),
    Strategy(load_and_be_killed, "torch", "S", "0", "0", "S"),
):
    STRATEGIES[strategy.name] = strategy
"""

# A plugin that draws one model a property.
FEW_MODELS = """
from bench.conformance import profiles

profiles.EXAMPLES.update(dev=1, ci=1)
"""

# A plugin that fills the disk.
FULL_DISK = """
from model.shelf import Shelf

Shelf._free_bytes = lambda self: 1_000_000
Shelf._removable_bytes = lambda self: 0
"""

if not Path("/proc/self/clear_refs").exists():
    pytest.skip("needs Linux's /proc", allow_module_level=True)

# A plugin that fills the disk when the run is recorded.
FULL_RESULTS = """
import os

def full(_):
    raise OSError(28, "No space left on device")

os.fsync = full
"""


@pytest.fixture(scope="module")
def whole_run(bench: Bench) -> "subprocess.CompletedProcess[str]":
    return bench("--conformance", "--deselect", "bench/test_faults.py", plugin=FEW_MODELS, page=True)


def test_the_main_job_passes_and_prints_a_table(whole_run: "subprocess.CompletedProcess[str]") -> None:
    assert whole_run.returncode == 0, whole_run.stdout
    lines = whole_run.stdout.splitlines()
    split = partial(re.split, r" {2,}")
    [heading] = [split(line) for line in lines if line.startswith("strategy ")]
    fastest: dict[str, float] = {}
    for strategy in STRATEGIES:
        [row] = [line for line in lines if line.startswith(f"{strategy} ")]
        assert row.endswith("  ok")
        cells = dict(zip(heading, split(row), strict=True))
        if cells["device"] == "1.00x":
            fastest[strategy] = float(cells["logits s"])
    assert list(fastest) == ["load_assign", "mmap_assign", "per_tensor", "streamed"]
    assert [line for line in lines if line.startswith("limit: memory ")]
    [best] = [line for line in lines if line.startswith("Best here: ")]
    # Which of them is the fastest of a tiny model is for the machine to say, on a busy one each time another.
    quick = [name for name, seconds in fastest.items() if seconds == min(fastest.values())]
    logits = f"{min(fastest.values()):.2f}"
    assert best in {f"Best here: {name} (1.00x device, logits in {logits} s on cpu)" for name in quick}
    own_table = lines[lines.index(next(line for line in lines if "weight loading:" in line)) :]
    assert max(map(len, own_table)) <= 120


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
        assert tuple(record) == FIELDS
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
        (name, column) for name, strategy in STRATEGIES.items() for column in columns(strategy)
    }
    for cell in cells:
        strategy, row = STRATEGIES[cell["strategy"]], PROPERTIES[cell["property"]]
        refused = row.name in strategy.refused("cpu") or not row.fits
        assert cell["outcome"] == ("refused" if refused else "passed")
        assert bool(cell["example"]) == refused
    lines = whole_run.stdout.splitlines()
    assert len([line for line in lines if line.startswith("| meta_sequential ")]) > 1
    assert (
        "mmap_assign, nonpersistent: refused: ValueError: ['weight0'] are not persistent: they have values only "
        in (whole_run.stdout)
    )
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
    assert "Memory while a load runs" in page
    for private in (str(Path.home()), str(ROOT), str(folder)):
        assert private not in page


@pytest.mark.usefixtures("whole_run")
def test_a_later_run_is_compared_and_mends_what_was_damaged(bench: Bench, folder: Path) -> None:
    damaged = folder / "checkpoints" / "gpt2-tiny-float32-per_tensor" / "tensors" / "out_head.weight.pt"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    run = bench("--benchmark-compare", "-k", "per_tensor and load_time")
    assert run.returncode == 0, run.stdout
    assert "gpt2-tiny-float32-per_tensor: out_head.weight.pt has " in run.stdout
    assert "it is made again" in run.stdout
    assert "test_load_time[per_tensor-tiny-cpu] (0001_" in run.stdout
    assert "test_load_time[per_tensor-tiny-cpu] (NOW)" in run.stdout
    # Nothing else wants what the page does.
    assert re.search(
        r"^For a page of this run, in \S+results/report/: pip install '\.\[report\]'$", run.stdout, re.MULTILINE
    )


@pytest.mark.usefixtures("whole_run")
def test_a_failed_test_explains_itself_and_records_nothing(bench: Bench, folder: Path) -> None:
    faulty = ("--strategies", "load_with_stray_copy,load_wrong,load_and_be_killed,per_tensor")
    run = bench(*faulty, "--device", "cpu", "-k", "peak_memory or load_time", plugin=FAULTY, page=True)
    assert run.returncode == 1, run.stdout
    recorded = [benchmark["name"] for benchmark in last_record(folder)["benchmarks"]]
    assert sorted(recorded) == [
        "test_load_time[load_with_stray_copy-tiny-cpu]",
        "test_load_time[per_tensor-tiny-cpu]",
        "test_peak_memory[per_tensor-tiny-cpu]",
    ]
    assert "load_with_stray_copy-tiny: host private peak is 1.0" in run.stdout
    # What failed is nothing that later runs are held against, but it is shown.
    problems = {problem["strategy"]: problem for problem in last_record(folder)["problems"]}
    assert problems.keys() == {"load_with_stray_copy", "load_wrong", "load_and_be_killed"}
    assert problems["load_with_stray_copy"]["record"]["timeline"]["host_private_bytes"]["seconds"]
    if find_spec("altair"):
        page = (folder / "results" / "report" / "index.html").read_text()
        [failed] = re.findall(r"3 of 4 loads failed: ([^.]*)\.", page)
        assert {*failed.split(", ")} == {f"{strategy}-tiny" for strategy in problems}
        assert "load_with_stray_copy-tiny: FAILED" in page
    # A breach is explained, though nothing but its own load was asked to explain itself.
    assert re.search(r"33\.17 MiB in 39 tensors: test_faults\.py:\d+ model\.stray = \[tensor\.clone\(\)", run.stdout)
    assert "load_wrong-tiny: WrongModel: trf_blocks.0.att.mask differs in 1 of" in run.stdout
    # Neither a measured load nor a timed one takes the run with it.
    assert run.stdout.count("FAILED bench/test_load_time.py::test_load_time[load_and_be_killed-tiny-cpu] - ") == 1
    assert "load_and_be_killed-tiny: the process of the load died: killed by SIGKILL" in run.stdout
    verdicts = {line.split()[0]: line.split()[-1] for line in run.stdout.splitlines() if " tiny " in line}
    assert verdicts == {
        **dict.fromkeys(("load_with_stray_copy", "load_wrong", "load_and_be_killed"), "FAILED"),
        "per_tensor": "ok",
    }


def test_a_breach_on_the_simulated_device_says_which_line_asked(bench: Bench) -> None:
    run = bench("--device", "sim", "--strategies", "load_with_stray_copy,load_and_look", plugin=FAULTY)
    assert run.returncode == 1, run.stdout
    assert "load_with_stray_copy-tiny: device requested peak is 2.00x" in run.stdout
    assert re.search(r"33\.17 MiB in 39 tensors: test_faults\.py:\d+ model\.stray = \[tensor\.clone\(\)", run.stdout)
    assert re.search(
        r"load_and_look-tiny: NotSimulated: test_faults\.py:\d+ reads values back from the device "
        r"\(torch\.Tensor\.item\): a simulated one has none; use --device cpu or cuda",
        run.stdout,
    )


def test_a_plan_needs_no_checkpoint_and_explains_itself(bench: Bench, folder: Path) -> None:
    run = bench("--plan", "--explain", "--sizes", "xl", "--strategies", "sequential,mmap_assign")
    assert run.returncode == 0, run.stdout
    assert "weight loading: float32 to sim, planned" in run.stdout
    assert re.search(r" 2 passed, \d+ deselected in ", run.stdout)
    lines = run.stdout.splitlines()
    start = lines.index("sequential-xl: device requested peak 6.59 GiB")
    assert lines[start + 1 : start + 3] == [
        "    6.29 GiB in 821 tensors: sequential.py:7 model = build().to(device)",
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


@pytest.mark.parametrize(
    ("options", "plugin", "message"),
    [
        (("--sizes", "huge"), None, "ERROR: --sizes: there is no 'huge'; choose from"),
        (("--device", "cuda:99"), None, "ERROR: --device cuda:99: "),
        (
            ("--dtype", "float16"),
            FULL_DISK,
            "ERROR: gpt2-tiny-float16-per_tensor needs 44.0 MB of disk, 1.0 MB are free",
        ),
        (("--cache", "tepid"), None, "ERROR: --cache: there is no 'tepid'; choose warm or cold"),
        (("--plan", "--cache", "cold"), None, "ERROR: --cache cold: a plan reads no file"),
        (("--plan", "--device", "cuda"), None, "ERROR: --device cuda: a plan is made for sim or cpu"),
    ],
)
def test_an_unusable_option_is_one_line_and_writes_nothing(
    bench: Bench, folder: Path, options: tuple[str, ...], plugin: str | None, message: str
) -> None:
    before = sorted(path for path in folder.rglob("*") if "plugins" not in path.parts and path.suffix != ".lock")
    run = bench(*options, plugin=plugin)
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert next(line for line in run.stderr.splitlines() if line.startswith("ERROR")).startswith(message)
    assert "Traceback" not in run.stdout + run.stderr
    after = sorted(path for path in folder.rglob("*") if "plugins" not in path.parts and path.suffix != ".lock")
    assert after == before


def test_a_run_that_cannot_be_recorded_shows_what_it_measured_and_fails(bench: Bench, folder: Path) -> None:
    bench("-k", "load_time and mmap_assign")
    before = sorted((folder / "results").rglob("*"))
    run = bench("-k", "load_time and mmap_assign", plugin=FULL_RESULTS)
    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    lines = run.stdout.splitlines()
    [row] = [line for line in lines if line.startswith("mmap_assign ")]
    assert row.endswith("  ok")
    [error] = [line for line in lines if line.startswith("ERROR: ")]
    assert error.startswith("ERROR: this run is not recorded: 0")
    assert error.endswith(".json cannot be written: No space left on device")
    assert "Traceback" not in run.stdout + run.stderr
    assert sorted((folder / "results").rglob("*")) == before


def test_a_cold_load_shows_what_it_fetched(bench: Bench, folder: Path) -> None:
    run = bench("--cache", "cold", "--device", "cpu", "-k", "(load_time or peak_memory) and mmap_assign")
    assert run.returncode == 0, run.stdout
    assert "page cache cold" in run.stdout
    records = {one["name"].partition("[")[0]: one["extra_info"] for one in last_record(folder)["benchmarks"]}
    for record in records.values():
        assert (record["cache"], record["limit"]) == ("cold", "disk")
        assert record["major_faults"] > 0


def test_tests_record_nothing(bench: Bench, folder: Path) -> None:
    before = sorted((folder / "results").rglob("*"))
    run = bench("--benchmark-disable", "-k", "load_time and mmap_assign")
    assert run.returncode == 0, run.stdout
    assert sorted((folder / "results").rglob("*")) == before


def test_every_option_is_in_the_help_with_its_default(bench: Bench) -> None:
    text = " ".join(bench("--help").stdout.split())
    group = text[text.index("weight loading:") :]
    for name, _, metavar, _ in (*OPTIONS, *HISTORY_OPTIONS, *VERSUS_OPTIONS):
        option = f"{name}={metavar}" if metavar else name
        assert option in group
        # Where the help of the next option begins, that of this one has said its default.
        assert "(default: " in re.split(r" --[a-z-]+(?:=[A-Z]+)? [a-z]", group.partition(f" {option} ")[2])[0], option
