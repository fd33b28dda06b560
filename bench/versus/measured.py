"""Figures of one run of the suite, read from the JSON of pytest-benchmark."""

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
class Benchmark:
    """Identity of a benchmark on both sides; None: a commit that did not record it yet."""

    fullname: str
    dtype: str | None = None
    cache: str | None = None
    planned: bool | None = None
    cast: str | None = None

    @property
    def name(self) -> str:
        """Its parameters, such as `streamed-small-cpu`; of a benchmark without any, its own name."""
        name = self.fullname.rpartition("::")[2]
        return name.partition("[")[2].removesuffix("]") or name


# Figures by name: what a benchmark has not measured is not there.
Run = Mapping[Benchmark, Mapping[str, float]]


def read_run(file: Path) -> Run:
    """Every benchmark of a run. Raises `ValueError` for a file that is not what pytest-benchmark writes."""
    try:
        benchmarks = json.loads(file.read_bytes())["benchmarks"]
        return dict(_measured(one["fullname"], one["extra_info"]) for one in benchmarks)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(f"{file.name} is no record of a run: {error!r}") from None


def _measured(fullname: str, record: Mapping[str, Any]) -> tuple[Benchmark, dict[str, float]]:
    fields = ("dtype", "cache", "planned", "cast")
    benchmark = Benchmark(fullname, *(record.get(name) for name in fields))
    figures = {name: record.get(name) for name in (*TIMES, *PEAKS)}
    return benchmark, {name: value for name, value in figures.items() if value is not None}
