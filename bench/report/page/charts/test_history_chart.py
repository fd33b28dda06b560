from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("altair", reason="pages want the extra: pip install '.[report]'")

from bench.history.change_points import change_points
from bench.history.runs import Run, read_run
from bench.report.page.charts.history_chart import history_figures
from bench.selftest.recorded_run import LOADS, MACHINE, Runs

OTHER = MACHINE | {"cores": 64}


def written(folder: Path, machines: list[Mapping[str, Any]]) -> list[Run]:
    runs = Runs(folder)
    return [read_run(runs.write(number, machine_info=machine)) for number, machine in enumerate(machines, 1)]


def test_a_line_ends_where_the_machine_is_another(tmp_path: Path) -> None:
    runs = written(tmp_path, [MACHINE, MACHINE, OTHER, MACHINE])
    *_, times = history_figures(runs, [], runs[-1], "small")
    values = [value for value in times.spec["datasets"]["values"] if value["benchmark"] == "streamed-small-cpu"]
    assert [value["stretch"] for value in values] == [1, 1, 2, 3]
    assert [value["machine"] for value in values] == [f"A & B <i>, {cores} cores" for cores in (2, 2, 64, 2)]


def test_every_figure_has_a_line_for_what_the_latest_run_has(tmp_path: Path) -> None:
    runs = written(tmp_path, [MACHINE] * 2)
    figures = history_figures(runs, [], runs[-1], "small")
    assert [figure.title for figure in figures] == [
        "small: device requested peak",
        "small: host private peak",
        "small: first logits",
    ]
    for figure in figures:
        assert len(figure.table) == 1 + 2 * (len(LOADS) - 1)
        assert figure.spec["datasets"]["runs"] == [{"run": run.name} for run in runs]


def test_one_run_is_no_history_and_neither_is_another_size(tmp_path: Path) -> None:
    runs = written(tmp_path, [MACHINE] * 2)
    assert history_figures(runs[:1], [], runs[0], "small") == []
    assert history_figures(runs, [], runs[-1], "xl") == []


def test_change_points_are_marked_on_their_line_only(runs: Runs) -> None:
    every = runs.read()
    points, _ = change_points(every)
    device, _, times = history_figures(every, points, every[-1], "small")
    assert device.spec["datasets"]["moved"] == []
    moved = times.spec["datasets"]["moved"]
    assert {(one["benchmark"], one["run"]) for one in moved} == {
        (f"{name}-small-cpu", "failed-0005_run") for name in LOADS if name != "per_tensor"
    }
    assert {one["change"] for one in moved} == {"+60.7 %"}
