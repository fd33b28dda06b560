"""The page that a run of the suite leaves, as users start it."""

import re
from pathlib import Path

import pytest

from bench.cases.conftest import Bench, last_record
from bench.cases.test_run import FAULTY

if not Path("/proc/self/clear_refs").exists():
    pytest.skip("needs Linux's /proc", allow_module_level=True)

ONE = ("-k", "peak_memory", "--strategies", "streamed")

# A plugin for an environment without the extra.
WITHOUT_ALTAIR = """
import sys

sys.modules["altair"] = None
"""

# A plugin with which no page can be made.
BROKEN_PAGE = """
import jinja2

def broken(*_, **__):
    raise RuntimeError("no such template")

jinja2.Environment.get_template = broken
"""


@pytest.fixture
def altair() -> None:
    pytest.importorskip("altair", reason="pages want the extra: pip install '.[report]'")


@pytest.mark.usefixtures("altair")
def test_a_run_has_a_page_beside_the_runs_with_its_timeline(bench: Bench, folder: Path) -> None:
    run = bench(*ONE)
    assert run.returncode == 0, run.stdout
    page = folder / "results" / "report" / "index.html"
    [said] = [line for line in run.stdout.splitlines() if line.startswith("Page: ")]
    assert said.endswith("results/report/index.html")
    text = page.read_text()
    assert "Memory while a load runs" in text
    assert "streamed-tiny" in text
    [record] = [one["extra_info"] for one in last_record(folder)["benchmarks"]]
    assert max(record["timeline"]["device_requested_bytes"]["bytes"]) == record["device_requested_peak_bytes"]
    assert record["alive_at_peak"]["device_requested_peak_bytes"]
    # No name of a machine or user, and no place on it.
    for name in (str(folder), str(Path.home()), str(Path(__file__).parents[2])):
        assert name not in text


@pytest.mark.usefixtures("altair")
def test_a_run_that_failed_has_a_page_with_what_was_measured(bench: Bench, folder: Path) -> None:
    run = bench(
        "-k",
        "peak_memory",
        "--strategies",
        "streamed,load_with_stray_copy",
        "--report",
        str(folder / "there"),
        plugin=FAULTY,
    )
    assert run.returncode == 1
    [problem] = last_record(folder)["problems"]
    assert problem["strategy"] == "load_with_stray_copy"
    assert problem["record"]["device_requested_peak_bytes"] > problem["record"]["state_bytes"]
    text = (folder / "there" / "index.html").read_text()
    assert "1 of 2 loads failed: load_with_stray_copy-tiny." in text
    assert "load_with_stray_copy-tiny: FAILED" in text
    # What failed is nothing that later runs are held against.
    assert not [one for one in last_record(folder)["benchmarks"] if "stray" in one["fullname"]]


def test_without_the_extra_the_run_works_and_says_how_to_get_the_page(bench: Bench, folder: Path) -> None:
    run = bench(*ONE, "--report", str(folder / "none"), plugin=WITHOUT_ALTAIR)
    assert run.returncode == 0, run.stdout
    assert re.search(r"^For a page of this run, in \S+none/: pip install '\.\[report\]'$", run.stdout, re.MULTILINE)
    assert not (folder / "none").exists()


@pytest.mark.usefixtures("altair")
def test_a_page_that_cannot_be_made_fails_the_run_and_loses_nothing(bench: Bench, folder: Path) -> None:
    (folder / "file").write_text("")
    run = bench(*ONE, "--report", str(folder / "file" / "report"))
    assert run.returncode == 1
    [error] = [line for line in run.stdout.splitlines() if line.startswith("ERROR: --report: ")]
    assert error.endswith("report/ cannot be written to: Not a directory")
    broken = bench(*ONE, plugin=BROKEN_PAGE)
    assert broken.returncode == 1
    assert "ERROR: --report: the page cannot be made: RuntimeError: no such template" in broken.stdout
    for result in (run, broken):
        assert re.search(r"^streamed +tiny .* ok$", result.stdout, re.MULTILINE)
    assert last_record(folder)["benchmarks"]


@pytest.mark.usefixtures("altair")
def test_what_is_not_recorded_has_no_page(bench: Bench, folder: Path) -> None:
    run = bench(*ONE, "--benchmark-disable", "--report", str(folder / "disabled"))
    assert run.returncode == 0
    assert "Page" not in run.stdout
    assert not (folder / "disabled").exists()
