"""Recorded runs, and a page of the last."""

from pathlib import Path

import pytest

from bench.report.recorded import Recorded, recorded
from bench.selftest.recorded_run import Runs


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Eight runs; from the fifth on all loads are slower."""
    made = Runs(tmp_path_factory.mktemp("runs"))
    for number, slower in enumerate((1.0, 1.01, 1.02, 1.0, 1.62, 1.6, 1.61, 1.62), 1):
        made.write(number, slower)
    return made


@pytest.fixture(scope="session")
def last(runs: Runs) -> Recorded:
    return recorded(max(runs.folder.glob("*.json")))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the libraries of pages."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def page(runs: Runs, last: Recorded, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the last run."""
    pytest.importorskip("altair", reason="pages want the extra: pip install '.[report]'")
    pytest.importorskip("vl_convert", reason="pages want the extra: pip install '.[report]'")
    from bench.report.page.page import write_page  # noqa: PLC0415 - of an extra

    return write_page(last, runs.read(), tmp_path_factory.mktemp("report"), cache)
