"""The picture and the page are of the run that the README shows."""

import base64
import re
from pathlib import Path

import pytest

from bench.report.readme import MAIN_JOB, PAGE, PICTURE
from bench.report.recorded import Recorded, recorded

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shown() -> Recorded:
    """The run that the README shows."""
    [name] = MAIN_JOB.runs((ROOT / "README.md").read_text())
    [file] = (ROOT / "results").glob(f"*/{name}.json")
    return recorded(file)


def test_the_picture_is_of_the_same_run_and_shows_its_peaks(shown: Recorded) -> None:
    picture = (ROOT / PICTURE).read_text()
    peaks = r'aria-label="(\S+): (device|private host|file-backed host|pinned host) memory peaks at ([\d,]+) bytes'
    drawn = set(re.findall(peaks, picture))
    fields = {
        "device": "device_requested_peak_bytes",
        "private host": "host_private_peak_bytes",
        "file-backed host": "host_file_peak_bytes",
        "pinned host": "host_pinned_peak_bytes",
    }
    loads = [load for size in shown.sizes for load in shown.metered(size)]
    recorded_peaks = {
        (load.key.title, name, f"{load.record.value(field):,}")
        for load in loads
        for name, field in fields.items()
        # What is less than a hundredth of the model has no line.
        if (load.record.value(field) or 0) > load.record.state_bytes / 100
    }
    assert drawn == recorded_peaks
    assert f"run {shown.run.number}" in picture


def test_the_page_is_of_the_same_run(shown: Recorded) -> None:
    page = (ROOT / PAGE).read_text()
    assert f"<title>Weight loading: run {shown.run.number}" in page
    assert base64.b64encode(shown.content).decode() in page
