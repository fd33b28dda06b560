"""Export of a run for dashboards: files for github-action-benchmark and Bencher."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bench.history.run_files import write_whole
from bench.history.runs import Key
from bench.record.field import Field, title
from bench.record.record import FIGURES, Record

NANOSECONDS = 1e9

OF_LOADS = tuple(one for one in FIGURES if one.compared and not one.compared.of_model)


def export(benchmarks: Iterable[dict[str, Any]], machine: str, folder: Path) -> None:
    """Write `github-action-benchmark.json` and `bencher.json` into a folder, which is made if it is not there.

    `benchmarks` are entries of pytest-benchmark's JSON; `machine` says in a line what they ran on. Raises `OSError`.
    """
    metrics: dict[str, dict[str, Any]] = defaultdict(dict)
    points: list[dict[str, Any]] = []
    for bench in benchmarks:
        record = Record.read(bench["extra_info"])
        name = f"{Key.of(bench['fullname'], record).whole_title}{' on a stand-in' if record.stand_in else ''}"
        if measured := _metrics(bench):
            metrics[name] |= measured
        points += [point | {"name": f"{name}: {point['name']}", "extra": machine} for point in _points(bench)]
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in (("github-action-benchmark.json", points), ("bencher.json", metrics)):
        write_whole(folder / file, json.dumps(content, indent=2).encode())


def _points(bench: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the action's `customSmallerIsBetter`: points, each the next one of the chart of its name."""
    for figure, value in _measured(bench):
        yield {"name": title(figure.name), "unit": "s" if figure.is_seconds else "bytes", "value": value}


def _metrics(bench: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return Bencher's metrics, by measure: its own `latency`, in nanoseconds, and one a figure of the record."""
    stats, found = bench["stats"], {}
    if (seconds := bench["extra_info"].get("first_logits_seconds")) is not None:
        spread = {
            "value": seconds,
            "lower_value": min(stats["min"], seconds),
            "upper_value": max(stats["max"], seconds),
        }
        found["latency"] = {name: value * NANOSECONDS for name, value in spread.items()}
    return found | {figure.name.replace("_", "-"): {"value": value} for figure, value in _measured(bench)}


def _measured(bench: dict[str, Any]) -> list[tuple[Field, float]]:
    found = [(figure, bench["extra_info"].get(figure.name)) for figure in OF_LOADS]
    return [(figure, value) for figure, value in found if value is not None]
