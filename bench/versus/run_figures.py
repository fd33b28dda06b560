"""Figures of one run of the suite, read from the JSON that pytest-benchmark wrote."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.record.record import PEAKS as PEAK_FIELDS
from bench.record.record import SECONDS

TIMES = tuple(figure.name for figure in SECONDS)
PEAKS = tuple(PEAK_FIELDS)


@dataclass(frozen=True)
class BenchmarkKey:
    """Identity of a benchmark: equal for figures that are compared. None: the commit did not record the field yet."""

    fullname: str
    dtype: str | None = None
    cache: str | None = None
    planned: bool | None = None
    cast: str | None = None

    @property
    def name(self) -> str:
        """Return the parameters, such as `streamed-small-cpu`, or the test's name where it has none."""
        name = self.fullname.rpartition("::")[2]
        return name.partition("[")[2].removesuffix("]") or name


# Figures by name: what a benchmark has not measured is not there.
RunFigures = Mapping[BenchmarkKey, Mapping[str, float]]


def read_run(file: Path) -> RunFigures:
    """Read every benchmark of a run. Raises `ValueError` for a file that pytest-benchmark did not write."""
    try:
        benchmarks = json.loads(file.read_bytes())["benchmarks"]
        return dict(_measured(one["fullname"], one["extra_info"]) for one in benchmarks)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(f"{file.name} is no record of a run: {error!r}") from None


def _measured(fullname: str, record: Mapping[str, Any]) -> tuple[BenchmarkKey, dict[str, float]]:
    fields = ("dtype", "cache", "planned", "cast")
    benchmark = BenchmarkKey(fullname, *(record.get(name) for name in fields))
    figures = {name: record.get(name) for name in (*TIMES, *PEAKS)}
    return benchmark, {name: value for name, value in figures.items() if value is not None}
