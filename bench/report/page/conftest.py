"""The browser of the tests of pages, one for all of them, and pages of runs that differ."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench.history.runs import read_run
from bench.report.recorded import recorded
from bench.selftest.opened_page import CHROMIUM, FLAGS
from bench.selftest.recorded_run import content, metered
from bench.selftest.small_suite import STATS

RESULTS = Path(__file__).parents[3] / "results"
# Recorded runs, by the beginnings of their files.
RECORDED = {"small": "0010", "all sizes": "0001", "ranks": "0017", "peers": "0011"}

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="browser tests want the extra: pip install '.[check]'")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium or Chrome on the PATH")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> dict[str, Path]:
    """Pages of GPT-2 small, of all sizes, of a plan over ranks, of other projects' loaders, and of a user's model."""
    pytest.importorskip("altair", reason="pages want the extra: pip install '.[report]'")
    pytest.importorskip("vl_convert", reason="pages want the extra: pip install '.[report]'")
    from bench.report.page.page import write_page  # noqa: PLC0415 - of an extra

    folder = tmp_path_factory.mktemp("pages")
    files = {name: next(RESULTS.glob(f"*/{number}_*.json")) for name, number in RECORDED.items()}
    files["user"] = folder / "failed-0001_run.json"
    files["user"].write_text(json.dumps(users_run()), encoding="utf-8")
    before = [read_run(file) for name, file in files.items() if name != "user"]
    return {
        name: write_page(run, [*(one for one in before if one.name != run.run.name), run.run], folder / name, cache)
        for name, file in files.items()
        for run in [recorded(file)]
    }


def users_run() -> dict[str, Any]:
    """Return a run of a model of the user's in which loads are refused, fail and do not fit."""
    own = {"model": "mine.py:net", "state_digest": "d", "layout": "torch", "size": "net", "host_budget_bytes": 2**30}
    advice = ["Use streamed for net on one device: it fits.", "Check it:", "    pytest bench --model mine.py:net"]
    run = content(1, problems=[], advice=advice)
    for benchmark in run["benchmarks"]:
        benchmark["fullname"] = benchmark["fullname"].replace("small", "net")
        benchmark["extra_info"] |= own | {"fits": True}
    loads: dict[str, tuple[str, float, dict[str, Any]]] = {
        "with_a_long_name_of_its_own": ("a.weight differs in 4,095,513 of 4,096,000 values", 2.4, {"fits": True}),
        "baseline_by_hand": ("ok", 2.6, {"fits": False, "fate": "killed at 1 GiB of 1 GiB after 61 % of the tensors"}),
        "safetensors_load_model": ("refused: _extra_state is <class 'dict'>, which has no name: use torch.save", 0, {}),
    }
    for name, (verdict, seconds, record) in loads.items():
        known = {"strategy": name, "size": "net", "verdict": verdict}
        taken = own | {"strategy": name, "first_logits_seconds": seconds}
        measured = metered("baseline") | taken | record
        if verdict == "ok":
            one = {"fullname": f"t.py::t[{name}-net-sim]", "extra_info": measured, "stats": STATS}
            run["benchmarks"].append(one)
        else:
            run["problems"].append(known | {"record": measured if seconds else {}})
    return run
