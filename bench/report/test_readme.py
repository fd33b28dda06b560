"""What the README shows of a run is in the record of that run, and nothing else is."""

import base64
import re
from pathlib import Path

import pytest

from bench.report.readme import PAGE, PICTURE, shown_run, with_run
from bench.report.recorded import Recorded, recorded
from bench.strategies import own_strategy
from model.checkpoints import Specification
from model.own import own

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shown() -> Recorded:
    """The run that the README shows."""
    [file] = (ROOT / "results").glob(f"*/{shown_run((ROOT / 'README.md').read_text())}.json")
    return recorded(file)


def test_the_readme_shows_the_table_of_its_run(shown: Recorded) -> None:
    readme = (ROOT / "README.md").read_text()
    assert with_run(readme, shown) == readme


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
    loads = [outcome for size in shown.sizes for outcome in shown.metered(size)]
    recorded_peaks = {
        (f"{outcome.strategy}-{outcome.size}", name, f"{outcome.record[field]:,}")
        for outcome in loads
        for name, field in fields.items()
        # What is less than a hundredth of the model has no line.
        if (outcome.record[field] or 0) > outcome.record["state_bytes"] / 100
    }
    assert drawn == recorded_peaks
    assert f"run {shown.run.number}" in picture


def test_the_page_is_of_the_same_run(shown: Recorded) -> None:
    page = (ROOT / PAGE).read_text()
    assert f"<title>Weight loading: run {shown.run.number}" in page
    assert base64.b64encode(shown.content).decode() in page


def test_a_readme_that_shows_no_run_is_refused(shown: Recorded) -> None:
    with pytest.raises(ValueError, match="<!-- run NAME -->"):
        with_run("# A README", shown)


def test_the_strangers_model_of_the_readme_can_be_measured(tmp_path: Path) -> None:
    """Its code as it stands there, and what the text says of its bytes."""
    readme = (ROOT / "README.md").read_text()
    [code] = re.findall(r"^```python\n(import torch\n.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    (tmp_path / "mine.py").write_text(code)
    model = own(f"{tmp_path}/mine.py:tagger", None, None, f"{tmp_path}/mine.py:example")
    footprint = Specification(model.label, model.dtype, "torch", model).footprint
    sizes = f"S = {footprint.state_bytes:,} bytes of state, L = {footprint.largest_tensor_bytes:,} bytes in its largest"
    assert f"{model.label}: {sizes}" in readme
    assert own_strategy(f"{tmp_path}/mine.py:usual", "S").name == "usual"
    assert model.asks
