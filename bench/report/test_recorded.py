import json
from pathlib import Path
from typing import Any

import pytest

from bench.history.runs import Unreadable
from bench.report.recorded import Recorded, problems, recorded
from bench.report.rows import Outcome
from bench.report.specimen import HOSTILE, LOADS, Runs, content
from bench.report.verdict import verdict

RESULTS = Path(__file__).parents[2] / "results"


def test_a_run_is_read_back_with_what_failed_in_it(last: Recorded) -> None:
    assert [row.strategy for row in last.rows] == list(LOADS)
    assert [row.problems for row in last.rows if row.problems] == [("<b>too much</b>: 1.30x > 1.20x",)]
    assert [outcome.strategy for outcome in last.metered("small")] == list(LOADS)
    assert last.metered("xl") == []


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*/0*.json")), ids=lambda file: file.name[:4])
def test_every_run_in_results_can_be_shown(file: Path) -> None:
    run = recorded(file)
    assert run.rows
    assert verdict(run).outcome == "passed"


@pytest.mark.parametrize(
    ("damaged", "why"),
    [
        (b"{", "cannot be read"),
        (b"[]", "is no run of this suite"),
        (json.dumps(content(1) | {"conformance": [{"property": "gone"}]}).encode(), "no property 'gone'"),
        (json.dumps(content(1) | {"problems": [{}]}).encode(), "is no run of this suite"),
        (json.dumps(content(1) | {"history": {"schema": 1, "outcome": "passed"}}).encode(), "is no run of this suite"),
    ],
)
def test_what_is_no_run_is_refused_in_a_line(tmp_path: Path, damaged: bytes, why: str) -> None:
    (tmp_path / "0001_run.json").write_bytes(damaged)
    with pytest.raises(Unreadable, match=why) as caught:
        recorded(tmp_path / "0001_run.json")
    assert "\n" not in str(caught.value)


def test_what_is_recorded_of_a_problem_does_not_say_where_it_is_on_this_machine() -> None:
    outcomes = [
        Outcome("a", "tiny", "ok"),
        Outcome("b", "tiny", "UntrustedCheckpoint: /home/me/.cache/x-1/model.pt: 'w/b' is cut at 3/4"),
        Outcome("c", "tiny", "open('/tmp/x y/z.pt') failed, see /var/log"),
    ]
    said = [problem["verdict"] for problem in problems(outcomes)]
    assert said == [
        "UntrustedCheckpoint: model.pt: 'w/b' is cut at 3/4",
        "open('x y/z.pt') failed, see log",
    ]


def history(outcome: str, **more: Any) -> dict[str, Any]:
    return {"schema": 1, "outcome": outcome, "failed": [], "changes": [], "accepted": False} | more


def sentence(folder: Path, **more: Any) -> str:
    return verdict(recorded(Runs(folder).write(1, **more))).sentence


def test_the_verdict_says_what_the_run_came_to(tmp_path: Path) -> None:
    key = ["t.py::t[streamed-small-cpu]", "float32", "warm", False]
    changes = [{"key": key, "figure": "load_seconds", "before": 1.0, "after": 1.5, "replaces": "0007_run"}]
    right = "3 strategies measured: every weight is right, and every peak is what theory says."
    assert sentence(tmp_path) == "1 of 4 strategies failed: per_tensor-small."
    assert sentence(tmp_path, problems=[], history=history("passed")) == right
    assert sentence(tmp_path, problems=[], history=history("failed", failed=["a.py::b"])) == "1 test failed: a.py::b."
    assert sentence(tmp_path, problems=[], history=history("interrupted")).startswith("Stopped before its end")
    worse = sentence(tmp_path, problems=[], history=history("failed", changes=changes))
    assert worse == f"{right} 1 figure is worse than in the runs before."
    accepted = sentence(tmp_path, problems=[], history=history("passed", changes=changes, accepted=True))
    assert accepted == f"{right} 1 figure is worse than in the runs before, and accepted."


def test_what_was_skipped_has_not_failed(tmp_path: Path) -> None:
    skipped = [{"strategy": HOSTILE, "size": "xl", "verdict": "skipped: too large", "record": {"strategy": HOSTILE}}]
    assert "failed" not in sentence(tmp_path, problems=skipped, history=history("passed"))
