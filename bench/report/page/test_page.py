import base64
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bench.report.recorded import Recorded, recorded
from bench.selftest import sharded_run
from bench.selftest.recorded_run import HOSTILE, LOADS, MACHINE, Runs, content, metered
from bench.selftest.small_suite import STATS

pytest.importorskip("altair", reason="pages want the extra: pip install '.[report]'")
pytest.importorskip("vl_convert", reason="pages want the extra: pip install '.[report]'")

from bench.report.page.page import write_page


class Elements(HTMLParser):
    """Every element of a page that names something outside of it, and every element's name."""

    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "action", "data") and not (value or "").startswith(("#", "data:")):
                self.outside.append(f"{tag} {name}={value}")
            if name == "id":
                self.ids.append(value or "")
            if name in ("aria-labelledby", "popovertarget", "data-chart") or (
                name == "href" and value and value[0] == "#"
            ):
                self.targets.append((value or "").removeprefix("#"))


@pytest.fixture(scope="module")
def text(page: Path) -> str:
    return page.read_text()


def specifications(text: str) -> list[dict[str, object]]:
    return [
        json.loads(one) for one in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)
    ]


def headings(text: str) -> list[str]:
    """Elements of the page itself: its scripts make some, too."""
    return re.findall(r"<h2[^>]*>(.*?)</h2>", text.partition("<noscript>")[0])


def test_the_page_is_whole_by_itself(text: str) -> None:
    elements = Elements()
    elements.feed(text)
    assert elements.outside == []
    assert len(elements.ids) == len(set(elements.ids))
    assert set(elements.targets) <= set(elements.ids)
    # A browser that keeps to it asks nobody for anything.
    assert "default-src 'none'" in text


def test_a_name_is_text_wherever_it_stands(text: str) -> None:
    assert HOSTILE not in text
    assert html.escape(HOSTILE, quote=True).replace("&#x27;", "&#39;") in text
    assert any(HOSTILE in json.dumps(spec) for spec in specifications(text))
    assert "<b>" not in text
    assert "<c>" not in text


def test_the_file_of_the_run_is_in_it_to_the_byte(text: str, last: Recorded) -> None:
    [encoded] = re.findall(r'href="data:application/json;base64,([^"]+)"', text)
    assert base64.b64decode(encoded) == last.content


def test_every_row_has_its_whole_record(text: str) -> None:
    raw = [
        json.loads(html.unescape(one)) for one in re.findall(r'class="raw"[^>]*><pre>(\{.*?)</pre>', text, re.DOTALL)
    ]
    assert [record["strategy"] for record in raw] == list(LOADS)
    for record in raw:
        measured = metered(record["strategy"])
        for name, value in measured.items():
            if value is not None and name not in ("timeline", "alive_at_peak"):
                assert record[name] == value
    # The time of a row may be of a load to another device than its peaks.
    assert {record["timed_on"] for record in raw if record.get("first_logits_seconds")} == {"cpu"}


def test_every_point_of_a_timeline_can_be_had(text: str) -> None:
    files = [base64.b64decode(one).decode() for one in re.findall(r'href="data:text/csv;base64,([^"]+)"', text)]
    assert len(files) == len(LOADS)
    lines = files[0].splitlines()
    assert "device_requested_bytes,2.1,2000000000" in [line.replace("2.0999999999999996", "2.1") for line in lines]
    assert len(lines) == 1 + 4 + 3 + 1 + 3


def test_what_is_worse_has_a_table(runs: Runs, tmp_path: Path, cache: Path) -> None:
    key = ["bench/test_load_time.py::test_load_time[streamed-small-cpu]", "float32", "warm", False]
    change = {"key": key, "figure": "load_seconds", "before": 1.0, "after": 1.5, "replaces": "0007_run"}
    gone = change | {"figure": None, "after": None}
    history = {"schema": 1, "outcome": "failed", "failed": [], "changes": [change, gone], "accepted": False}
    file = Runs(tmp_path).write(9, history=history)
    text = write_page(recorded(file), runs.read(), tmp_path / "new" / "report", cache).read_text()
    rows = re.findall(r"<tr><th scope=\"row\">streamed-small-cpu</th>(.*?)</tr>", text)
    assert re.findall(r"<td>(.*?)</td>", rows[0]) == ["load", "1.000 s", "1.500 s", "+50.0 %", "0007_run"]
    assert re.findall(r"<td>(.*?)</td>", rows[1]) == ["the benchmark", "", "", "gone", "0007_run"]
    assert "1 figure is worse and 1 benchmark gone than in the runs before" in text


def test_how_a_load_ended_that_had_too_little_memory_is_on_it(tmp_path: Path, cache: Path) -> None:
    record = metered("streamed") | {"fits": False, "fate": "killed at 3.9 GiB of 4 GiB after 61 % of the tensors"}
    [tried, *_] = content(1)["benchmarks"]
    file = Runs(tmp_path).write(1, benchmarks=[tried | {"extra_info": record}], problems=[])
    one = recorded(file)
    text = write_page(one, [one.run], tmp_path, cache).read_text()
    assert "<strong>streamed-small</strong><pre>killed at 3.9 GiB of 4 GiB after 61 % of the tensors</pre>" in text
    assert "too big" in text


def test_many_ranks_are_shown_by_what_they_hold(tmp_path: Path, page: Path, cache: Path) -> None:
    one = recorded(Runs(tmp_path).write(1, benchmarks=sharded_run.benchmarks(), problems=[], conformance=[]))
    text = write_page(one, [one.run], tmp_path, cache).read_text()
    assert [f"raw record of streamed {way} x2-small" in text for way in ("fsdp", "tensor")] == [True, True]
    assert "one rank of 2 holds S/N = 476.8 MiB (fsdp)" in text
    assert "Of many ranks, rank 0 is shown." in text
    for said in ("Figures with an x are multiples of S.", "raw record of streamed-small"):
        assert said in page.read_text()
        assert said not in text


def test_a_stand_in_for_a_gpu_is_named(tmp_path: Path, page: Path, cache: Path) -> None:
    machine = MACHINE | {"gpus": ["stand-in for a GPU"], "stand_in": "80 GiB"}
    runs = Runs(tmp_path)
    for number in (1, 2):
        file = runs.write(number, machine_info=machine)
        run = json.loads(file.read_text())
        run["benchmarks"] = [one for one in run["benchmarks"] if "test_peak_memory" in one["fullname"]]
        for benchmark in run["benchmarks"]:
            benchmark["extra_info"] |= {"device": "cuda", "stand_in": "80 GiB"}
        file.write_text(json.dumps(run))
    text = write_page(recorded(file), runs.read(), tmp_path, cache).read_text()
    for said in (
        "torch 2.13.0, stand-in for a GPU (80 GiB).</p>",
        "<p>small: model S = 953.7 MiB (1,000,000,000 bytes)",
        "stand-in for a GPU (80 GiB): bytes are of PyTorch&#39;s CUDA allocator, and no times are shown.<br>",
        "The GPU is a stand-in: seconds are not those of a GPU.",
        "2 cores, stand-in for a GPU (80 GiB)",
    ):
        assert said in text, said
        assert (said in page.read_text()) == said.startswith("<p>")
    assert "Time and memory" not in headings(text)
    assert "Fastest" not in text


def test_what_failed_has_the_options_that_explain_it(text: str) -> None:
    assert "<p>To look into what failed, repeat with: -k per_tensor --explain</p>" in text


def test_what_was_not_recorded_has_no_section(tmp_path: Path, page: Path, cache: Path) -> None:
    file = Runs(tmp_path).write(1, benchmarks=[], problems=[], conformance=[])
    one = recorded(file)
    text = write_page(one, [one.run], tmp_path, cache).read_text()
    assert headings(text) == ["Recommendation", "Results", "Machine"]
    assert headings(page.read_text()) == [
        *("Recommendation", "Time and memory", "Failed loads", "Results", "Memory over time"),
        *("Memory alive at the peak", "Conformance", "History", "Machine"),
    ]


def test_the_machine_has_no_row_without_a_value(text: str) -> None:
    machine = text[text.index('id="machine"') :]
    assert re.findall(r'<th scope="row">(.*?)</th>', machine) == ["torch", "python version", "cores", "cpu"]


def test_a_model_without_earlier_runs_says_so_in_one_sentence(tmp_path: Path, cache: Path) -> None:
    runs = Runs(tmp_path)
    file = runs.write(1)
    text = write_page(recorded(file), runs.read(), tmp_path, cache).read_text()
    history = text[text.index('id="history"') : text.index('id="machine"')]
    assert "<p>No earlier run measured these loads of this model.</p>" in history
    assert "data-chart" not in history


def test_loads_by_many_numbers_of_ranks_are_grouped(tmp_path: Path, cache: Path) -> None:
    counts = (2, 8)
    benchmarks = [
        {"fullname": f"t.py::t[{name}-{way}-small-x{ranks}-sim]", "extra_info": record, "stats": STATS}
        for name in ("streamed", "broadcast")
        for way in ("fsdp", "tensor")
        for ranks in counts
        for record in [sharded_run.of_ranks(name, way, ranks, planned=True)]
    ]
    one = recorded(Runs(tmp_path).write(1, benchmarks=benchmarks, problems=[], conformance=[]))
    text = write_page(one, [one.run], tmp_path, cache).read_text()
    [pivot] = re.findall(r'<table class="pivot">(.*?)</table>', text, re.DOTALL)
    assert re.findall(r"<th scope=\"col\">(.*?)</th>", pivot) == ["2 ranks", "8 ranks"] * 2
    assert len(re.findall(r'<th scope="row">', pivot)) == 4
    # Every load with every figure is there, in a part that is closed.
    assert re.findall(r"<summary>(small on .*?)</summary>", text) == [
        f"small on {count} ranks: 4 loads with every figure" for count in counts
    ]


def test_a_page_that_cannot_be_written_leaves_the_one_before(
    runs: Runs, last: Recorded, page: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "index.html").write_text("before")
    monkeypatch.setattr("bench.history.run_files.os.fsync", _full)
    with pytest.raises(OSError, match="full"):
        write_page(last, runs.read(), tmp_path, cache)
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["index.html"]
    assert (tmp_path / "index.html").read_text() == "before"


def _full(_: int) -> None:
    raise OSError(28, "full")


def test_the_history_is_of_the_model_of_the_run_alone(tmp_path: Path, cache: Path) -> None:
    runs = Runs(tmp_path)
    for number, model in enumerate(("one.py:small", "other.py:small", None, "one.py:small", "one.py:small"), 1):
        whose = {"model": model, "state_digest": model, "layout": "torch"}
        slower, cores = (1.0, 2) if model == "one.py:small" else (9.0, 64)
        file = runs.write(number, slower, machine_info=MACHINE | {"cores": cores})
        run = json.loads(file.read_text())
        for benchmark in run["benchmarks"]:
            benchmark["extra_info"] |= whose
        file.write_text(json.dumps(run))
    text = write_page(recorded(file), runs.read(), tmp_path / "report", cache).read_text()
    history = text[text.index('id="history"') :]
    assert "in 3 recorded runs, a line a benchmark; 0 change points" in history
    assert "failed-0002" not in history
    assert "failed-0003" not in history
    # What others ran on elsewhere in between ends no line.
    assert set(re.findall(r'"stretch": ?(\d+)', history)) == {"1"}
