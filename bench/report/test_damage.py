"""Run files that are damaged or hostile: each is named in a line, and all others are used.

Whatever is read can be rendered. With `--hypothesis-profile nightly` 100,000 files are read.
"""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.history.baselines import Baselines
from bench.history.comparison import Comparison
from bench.history.findings import byte_changes
from bench.history.runs import Run, read_run
from bench.history.schema import baseline
from bench.record.record_file import Unreadable
from bench.report.comparison_section import comparison_lines, comparison_markdown, comparison_title
from bench.report.conformance import conformance_lines
from bench.report.export import _metrics, _points
from bench.report.history_section import history_lines, history_markdown
from bench.report.peers import PEERS, version_lines
from bench.report.recorded import Recorded, recorded
from bench.report.run_verdict import verdict
from bench.report.sharded_section import SHARDED
from bench.report.table import markdown, terminal_lines
from bench.selftest.recorded_run import CHANGE, content

RESULTS = Path(__file__).parents[2] / "results"

# By night 100,000 files are read, and 5,000 of them shown.
BY_NIGHT = settings().max_examples > 1000
READ, SHOWN = (100_000, 5_000) if BY_NIGHT else (60, 20)

LONG = "long " * 20_000
NASTY: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**63, 10**400, -(10**400), 0.5, 5e-324, 1e308, float("inf"), float("nan")),
    *("", "x", "1", "\ud800", "\x1b[31mERROR: forged\r\n", "\u2028", LONG, "a b x99999999999", "a b x3", "limit: x"),
    *("sim", "cuda", "cpu", "mapped", "refused: x", "skipped: x", "passed", "WRONG", "<script>alert(1)</script>"),
    *([], {}, [[]], [1, 2], ["x"], [None], {"schema": 1}, {"schema": 2}, {"x": {}}, {"seconds": [], "bytes": []}),
    {"moments": {}, "host_private_bytes": {"seconds": [0.0], "bytes": [1e300]}},
    *([[[[[[[[["deep"]]]]]]]]], {"a": {"b": {"c": {"d": {"e": {"f": 1}}}}}}),
]


def shortened(file: Path) -> dict[str, Any]:
    """The first benchmarks of a recorded run, one a test, and a little of all else that is in it."""
    data = json.loads(file.read_bytes())
    tests = {bench["fullname"].partition("[")[0]: bench for bench in reversed(data["benchmarks"])}
    data |= {name: data.get(name, [])[:2] for name in ("conformance", "problems")} | {"benchmarks": [*tests.values()]}
    for bench in tests.values():
        for points in ((bench["extra_info"].get("timeline") or {}).get(name) for name in ("host_private_bytes",)):
            if points:
                points |= {name: values[:3] for name, values in points.items()}
    return data


def sources() -> list[dict[str, Any]]:
    """Runs of every kind: of several versions, of peers, many ranks, a user's model, a stand-in; failed; worse."""
    recorded_runs = [
        shortened(next(RESULTS.glob(f"*/{name}_*.json"))) for name in ("0001", "0011", "0018", "0019", "0020")
    ]
    history = content(1)["history"] | {"changes": [CHANGE, CHANGE | {"figure": None, "after": None}], "busy": [CHANGE]}
    failed = content(1) | {"history": history}
    failed |= {"conformance": failed["conformance"][:3], "benchmarks": failed["benchmarks"][:3]}
    return [*recorded_runs, failed]


SOURCES = sources()
NAMES = sorted({name for source in SOURCES for bench in source["benchmarks"] for name in bench["extra_info"]})

# Steps from the whole to a value in it, what is done there, and with which value.
Damage = tuple[list[int], str, Any, str]
DAMAGE = st.tuples(
    st.lists(st.integers(0, 10_000), min_size=1, max_size=7),
    st.sampled_from(("replace", "replace", "remove", "insert")),
    st.sampled_from(NASTY),
    st.sampled_from(NAMES),
)


def damaged(source: dict[str, Any], damage: list[Damage]) -> bytes:
    """The file of a run in which values are replaced, removed and inserted."""
    data = copy.deepcopy(source)
    for steps, action, drawn, name in damage:
        value = copy.deepcopy(drawn)
        place: Any = data
        for step in steps[:-1]:
            inner = place[_at(place, step)] if place else None
            if not isinstance(inner, dict | list) or not inner:
                break
            place = inner
        if action == "insert":
            place.insert(0, value) if isinstance(place, list) else place.update({name: value})
        elif place and action == "remove":
            del place[_at(place, steps[-1])]
        elif place:
            place[_at(place, steps[-1])] = value
    return json.dumps(data).encode()


def _at(place: Any, step: int) -> Any:
    return sorted(place)[step % len(place)] if isinstance(place, dict) else step % len(place)


def attempt(read: Callable[[Path], Any], file: Path) -> Any:
    """Return what a reader makes of a file, or None if it says in a line why it does not."""
    try:
        return read(file)
    except Unreadable as error:
        said = str(error)
        assert said.isprintable()
        assert len(said) < 500
        return None


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged") / "0001_run.json"


@settings(max_examples=READ)
@given(st.sampled_from(SOURCES), st.lists(DAMAGE, min_size=1, max_size=3))
def test_a_damaged_run_is_read_or_said_to_be_none(file: Path, source: dict[str, Any], damage: list[Damage]) -> None:
    file.write_bytes(damaged(source, damage))
    run, shown = attempt(read_run, file), attempt(recorded, file)
    assert run or not shown


@settings(max_examples=READ)
@given(
    st.sampled_from([json.dumps(source, indent=4).encode() for source in SOURCES]),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 64), st.binary(max_size=4)), min_size=1, max_size=3),
)
def test_damaged_bytes_are_read_or_said_to_be_none(
    file: Path, content: bytes, damage: list[tuple[int, int, bytes]]
) -> None:
    for where, many, put in damage:
        at = where % len(content)
        content = content[:at] + put + content[at + many :]
    file.write_bytes(content)
    run, shown = attempt(read_run, file), attempt(recorded, file)
    assert run or not shown


@settings(max_examples=SHOWN)
@given(st.sampled_from(SOURCES), st.lists(DAMAGE, min_size=1, max_size=2))
def test_what_is_read_of_a_damaged_run_can_be_shown(file: Path, source: dict[str, Any], damage: list[Damage]) -> None:
    file.write_bytes(damaged(source, damage))
    sound = file.with_name("0002_run.json")
    sound.write_text(json.dumps(source))
    if run := attempt(read_run, file):
        show_history(run, read_run(sound), recorded(sound))
    if shown := attempt(recorded, file):
        show(shown, read_run(sound))
    for bench in (attempt(lambda path: baseline(path.read_bytes()), file) or {"benchmarks": []})["benchmarks"]:
        if "schema" in bench["extra_info"]:
            list(_points(bench))
            _metrics(bench)


def show_history(run: Run, sound: Run, now: Recorded) -> None:
    """The run among others before a sound one: its series, and what the sound one is compared with."""
    runs = [run, sound, *[run] * 6]
    history_lines(runs, [], 120)
    history_markdown(runs, [])
    comparison = Comparison(Baselines(runs, sound.machine, (run,)), False, [])
    comparison.baselines.recorded()
    for key, record in sound.records.items():
        comparison.findings.extend(byte_changes(comparison.baselines, key, record, 0.01))
    comparison.grown = dict(sound.records)
    comparison.vanished = dict.fromkeys(run.records, run)
    comparison.conclude(dict(sound.records), 0.05)
    comparison.baselines.latest_here(list(sound.records))
    comparison_title(comparison)
    comparison_lines(comparison, None, 80)
    comparison_markdown(comparison, None)
    version_lines(now.rows, [run])


def show(shown: Recorded, sound: Run) -> None:
    """The run as tables, as sections of documents, and as a page."""
    terminal_lines(shown.rows, 80)
    markdown(shown.rows)
    conformance_lines(shown.cells, 80, whole=True)
    verdict(shown)
    PEERS.rendered([shown])
    if any(row.key.parallelism for row in shown.rows):
        SHARDED.rendered([shown])
    pytest.importorskip("altair", reason="pages want the extra: pip install '.[report]'")
    from bench.report.page.page import _context  # noqa: PLC0415 - of an extra

    context = _context(shown, [sound, shown.run, shown.run])
    json.dumps([figure.spec for section in context["sections"].values() for figure in section.figures], allow_nan=False)
