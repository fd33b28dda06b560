import html
import json
import re
from pathlib import Path

import pytest

from bench.report.recorded import recorded
from bench.selftest.recorded_run import MACHINE, Runs, content, metered

pytest.importorskip("altair", reason="pages want the extra: pip install '.[report]'")
pytest.importorskip("vl_convert", reason="pages want the extra: pip install '.[report]'")

from bench.report.page.page import write_page


def answered(text: str) -> str:
    """Return the section that answers the question of the page; it is the first."""
    first = text.index("<section")
    assert text[first:].startswith('<section class="answer')
    return text[first : text.index("</section>")]


def copied(section: str) -> list[str]:
    """Return the blocks that are there to be copied."""
    assert section.count("data-copy=") == section.count("<pre ")
    return [html.unescape(one) for one in re.findall(r"<pre [^>]*>(.*?)</pre>", section, re.DOTALL)]


def test_without_a_budget_the_page_recommends_what_takes_least_with_its_command_and_code(
    tmp_path: Path, cache: Path
) -> None:
    one = recorded(Runs(tmp_path).write(1, conformance=[], benchmarks=content(1)["benchmarks"][:4]))
    section = answered(write_page(one, [one.run], tmp_path, cache).read_text())
    assert '<p class="choice">streamed</p>' in section
    command, lines, code = copied(section)
    assert command == "pytest bench --sizes small --strategies streamed"
    assert lines.startswith("from load_streamed import streamed\nmodel = streamed(build, ")
    assert "def streamed(" in code
    assert re.findall(r"<dt>(.*?)</dt><dd>([^<]*)", section) == [("GPU memory", "0.93 GiB"), ("RAM", "0.09 GiB")]


def test_what_a_load_needs_is_held_against_what_is_there(tmp_path: Path, cache: Path) -> None:
    there = MACHINE | {"memory_bytes": 2**34, "gpu_memory_bytes": [2**35, 24 * 2**30]}
    one = recorded(Runs(tmp_path).write(1, machine_info=there, conformance=[], benchmarks=content(1)["benchmarks"][:4]))
    section = answered(write_page(one, [one.run], tmp_path, cache).read_text())
    assert re.findall(r"<dt>(.*?)</dt><dd>([^<]*)", section) == [
        ("GPU memory", "0.93 GiB of 24.0 GiB"),
        ("RAM", "0.09 GiB of 16.0 GiB"),
    ]
    assert re.findall(r"width: (\d+)%", section) == ["4", "1"]


def test_where_nothing_can_be_used_nothing_is_recommended(tmp_path: Path, cache: Path) -> None:
    record = metered("streamed") | {"fits": False, "fate": "killed"}
    [tried, *_] = content(1)["benchmarks"]
    file = Runs(tmp_path).write(1, benchmarks=[tried | {"extra_info": record}], problems=[])
    one = recorded(file)
    section = answered(write_page(one, [one.run], tmp_path, cache).read_text())
    assert "This run has no load that could be recommended." in section
    assert "choice" not in section


ADVICE = [
    "Use streamed for small on one device. It fits.",
    "Check it:",
    "    pytest bench --rename '<b>=x'",
    "Its code: load_streamed.py, 3 lines",
    "    import os",
    "",
    "    def parallelize(model):",
    "        return model",
]


def test_the_advice_is_on_it_as_it_was_recorded(tmp_path: Path, cache: Path) -> None:
    one = recorded(Runs(tmp_path).write(1, advice=ADVICE))
    text = write_page(one, [one.run], tmp_path, cache).read_text()
    section = answered(text)
    assert re.findall(r"<p>(.*?)</p>", section) == [ADVICE[0], ADVICE[1], ADVICE[3]]
    assert copied(section)[:2] == [
        "pytest bench --rename '<b>=x'",
        "import os\n\ndef parallelize(model):\n    return model",
    ]
    assert "<b>" not in section
    ids = re.findall(r' id="([^"]+)"', text.partition("<noscript>")[0])
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'data-copy="([^"]+)"', section)) <= set(ids)


@pytest.mark.parametrize(
    ("advice", "outcome", "choice"),
    [
        (["No strategy can load small with this memory."], "failed", False),
        (["Use streamed for small on one device. It fits."], "failed", True),
        ([], "interrupted", False),
        ([], "failed", True),
    ],
)
def test_nothing_is_recommended_that_the_run_did_not_advise(
    tmp_path: Path, cache: Path, advice: list[str], outcome: str, choice: bool
) -> None:
    """A record does not say that a load was not tried yet with the memory that the user gave."""
    benchmarks = content(1)["benchmarks"][:4]
    run = content(1, benchmarks=benchmarks, conformance=[], advice=advice)
    file = tmp_path / "failed-0001_run.json"
    file.write_text(json.dumps(run | {"history": run["history"] | {"outcome": outcome}}))
    one = recorded(file)
    section = answered(write_page(one, [one.run], tmp_path, cache).read_text())
    assert ('<p class="choice">streamed</p>' in section) == choice
